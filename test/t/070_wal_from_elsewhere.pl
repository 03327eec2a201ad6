
# A remote segment that got WAL in another way than through us, since
# primary_conninfo was set for a while, is at no point: it is not promoted, and
# says so, until the next point is applied.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('elsewhere', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->sql($_, 'INSERT INTO t VALUES (1)') foreach $c->ids;
$c->wait_applied($c->create_point('first'));

my $remote = $c->remote(0);
my $released = $remote->safe_psql('postgres', q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});

# Segment 0 streams for a while, and replays what is at no point.
sub stream
{
	my ($standby, $source) = @_;
	my $rows = 'SELECT count(*) FROM t';

	$standby->append_conf('postgresql.conf', sprintf("primary_conninfo = '%s'", $source->connstr =~ s/'/''/gr));
	$standby->restart;
	$c->wait_for($standby, q{SELECT state = 'failed' FROM multisite_status WHERE worker = 'receiver'});
	$source->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(2, 1000)');
	$c->wait_for($standby, "SELECT ($rows) = " . $source->safe_psql('postgres', $rows));
}
stream($remote, $c->source(0));
$remote->append_conf('postgresql.conf', q{primary_conninfo = ''});
$c->sql(-1, 'SHOW server_version_num') >= 140000 ? $remote->reload : $remote->restart;

$c->wait_for($remote, q{SELECT reason LIKE 'not yet consistent%' FROM multisite_status WHERE worker = 'receiver'});
like(slurp_file($remote->logfile),
	qr/WARNING: .*has WAL that multisite_repl did not release.*\n.*Released was the WAL up to \Q$released\E/,
	'the log says that there is WAL of somebody else, and behind what');
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM multisite_segments WHERE segment_id = 0 AND reason LIKE 'not yet consistent%'});
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', 'SELECT multisite_promote()');
isnt($status, 0, 'the site cannot be promoted at a point that this segment is behind');
like($err, qr/cannot be used at this site\n.*before the base backup of segment 0/, 'and it is said');
is($c->remote_sql(-1, 'SELECT pg_is_in_recovery()') . $c->remote_sql(0, 'SELECT pg_is_in_recovery()'),
	'tt', 'nothing was promoted');

$c->sql($_, 'INSERT INTO t VALUES (-1)') foreach $c->ids;
$c->wait_applied($c->create_point('second'));
$c->sql($_, 'INSERT INTO t VALUES (-2)') foreach $c->ids;
is(($c->promote)[0], 'second', 'at the next point it can');
is($c->remote_sql($_, 'SELECT count(*), min(a) FROM t'),
	$c->sql($_, 'SELECT count(*) - 1, -1 FROM t'), "segment $_ is at that point") foreach $c->ids;

# promoted by hand in that state
$c = Multisite->new('elsewhere_hand');
$c->start_source;
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->wait_applied($c->create_point('first'));
stream($c->remote(-1), $c->source(-1));
$c->source(-1)->stop('immediate');
$c->remote(-1)->promote;
$c->wait_for($c->remote(-1), q{SELECT state = 'promoted' AND reason LIKE '%which is no consistency point' FROM multisite_status WHERE worker = 'receiver'});
pass('who was promoted behind a point does not call itself promoted at it');
$c->remote(-1)->restart;
$c->wait_for($c->remote(-1), q{SELECT state = 'promoted' AND reason LIKE '%which is no consistency point' FROM multisite_status WHERE worker = 'receiver'});
pass('nor after a restart');

done_testing();
