
# Whoever promotes a remote segment by hand, without asking us, gets exactly
# its last released point.

use strict;
use warnings;

use Test::More;

use Greenplum;

my $c = Greenplum->new('naive', segments => 1);

$c->start_source;
$c->sql('CREATE TABLE t (a int, b text) DISTRIBUTED BY (a); INSERT INTO t SELECT i FROM generate_series(1, 1000) i');
$c->start_remote;
$c->wait_applied($c->create_point);
my $segment = $c->server('dr', 0);
my $released = $c->query($segment, q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});

# more WAL arrives than a segment file of Greenplum's has, and a point that is held back
$c->remote_sql('SELECT multisite_pause()');
$c->sql(q{INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 600000) i});
$c->wait_applied($c->create_point, 'staged');
my $staged = $c->query($segment, q{SELECT staged_lsn FROM multisite_status WHERE worker = 'receiver'});
cmp_ok($c->query($segment, "SELECT pg_wal_lsn_diff('$staged', '$released')"), '>', 64 * 1024 * 1024,
	'more than a WAL segment is staged and not released');

Greenplum::command('pg_ctl', '-D', $segment->{dir}, '-w', '-t', $Greenplum::timeout, 'promote');
is($c->query($segment, 'SELECT count(*) FROM t'), '1000', 'the segment ends at its last released point');
like(Greenplum::slurp("$segment->{dir}/pg_wal/00000002.history"), qr/^1\t\Q$released\E\t/m,
	'its new timeline begins where that point ended');
$c->wait_for($segment, q{SELECT state = 'promoted' FROM multisite_status WHERE worker = 'receiver'});
is(scalar(grep { /[0-9A-F]{24}$/ } glob("$segment->{dir}/pg_wal/multisite/*")), 0, 'what was staged is gone');

done_testing();
