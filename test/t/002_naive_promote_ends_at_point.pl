
# Whoever promotes a remote segment by hand, without asking us, gets exactly
# its last released point.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('naive', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql(0, 'CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 1000)');

# a commit that follows the point is staged before the point is released
$c->remote_sql(-1, 'SELECT multisite_pause()');
my $point = $c->create_point;
$c->sql(0, 'INSERT INTO t VALUES (-1)');
my $end = $c->sql(0, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for($c->remote(0), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_applied($point);
my $released = $c->remote_sql(0, q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});

# more WAL arrives, enough for several segments, and a point that is held back
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(0, q{INSERT INTO t SELECT generate_series(1, 400000)});
my $later = $c->create_point;
$c->wait_applied($later, 'staged');
my $staged = $c->remote_sql(0, q{SELECT staged_lsn FROM multisite_status WHERE worker = 'receiver'});
cmp_ok($c->remote_sql(0, "SELECT pg_wal_lsn_diff('$staged', '$released')"), '>', 16 * 1024 * 1024,
	'more than a WAL segment is staged and not released');

my $files = sub { return scalar(grep { /^[0-9A-F]{24}$/ } slurp_dir($c->remote(0)->data_dir . '/pg_wal/multisite')); };
cmp_ok($files->(), '>', 1, 'in files of their own');

$c->remote(0)->promote;
is($c->remote_sql(0, 'SELECT count(*) FROM t'), '1000', 'the segment ends at its last released point');
my $history = slurp_file($c->remote(0)->data_dir . '/pg_wal/00000002.history');
like($history, qr/^1\t\Q$released\E\t/m, 'its new timeline begins where that point ended');
$c->wait_for($c->remote(0), q{SELECT state = 'promoted' FROM multisite_status WHERE worker = 'receiver'});
is($files->(), 0, 'what was staged is gone');

done_testing();
