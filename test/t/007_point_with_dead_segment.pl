
# A segment that is down makes a consistency point fail with a clear error;
# the half-made point is never released, and the next one works.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('dead', segments => 2);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('first'));

$c->source(1)->stop('immediate');
my ($status, $out, $err) = $c->source(-1)->psql('postgres',
	q{SELECT multisite_create_consistency_point('half')});
isnt($status, 0, 'no point while a segment is down');
like($err, qr/segment 1 could not be reached/, 'the error names the segment');
like($err, qr/DETAIL:.*(No such file|refused)/s, 'and says why');
is($c->sql(-1, q{SELECT count(*) FROM multisite_consistency_points WHERE name = 'half'}), '0',
	'the point does not exist');
$c->sql($_, 'INSERT INTO t VALUES (1)') foreach -1, 0;
pass('commits go on: the barrier is down');

# a segment that dies between the steps: its server hangs
$c->source(1)->start;
my ($postmaster) = split /\n/, slurp_file($c->source(1)->data_dir . '/postmaster.pid');
$c->sql(-1, q{ALTER SYSTEM SET multisite.barrier_timeout = '500ms'});
$c->sql(-1, 'SELECT pg_reload_conf()');
$c->create_point('second');
my @backends = split /\s+/, $c->sql(1, q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity
	WHERE application_name = 'multisite' AND backend_type = 'client backend'});
is(scalar(@backends), 1, 'the connection to the segment is kept');
kill 'STOP', @backends;
($status, $out, $err) = $c->source(-1)->psql('postgres', q{SELECT multisite_create_consistency_point('third')});
kill 'CONT', @backends;
like($err, qr/segment 1 could not/, 'a segment that hangs is named');
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
pass('commits go on everywhere');

my $point = $c->create_point('fourth');
$c->wait_applied($point);
is($c->remote_sql(-1, q{SELECT string_agg(name, ' ' ORDER BY id) FROM multisite_consistency_points}),
	'first second fourth', 'only whole points ever reached the remote');

# names
foreach my $case (
	[ "''", qr/must not be empty/ ],
	[ "repeat('x', 64)", qr/too long/ ],
	[ "'first'", qr/exists already/ ],
	[ "'multisite_mine'", qr/must not begin with/ ],
	[ "E'a\\nb'", qr/printable ASCII/ ])
{
	($status, $out, $err) = $c->source(-1)->psql('postgres', "SELECT multisite_create_consistency_point($case->[0])");
	like($err, $case->[1], "refused: $case->[0]");
}
is($c->create_point(q{o''hara; DROP TABLE t--}), q{o'hara; DROP TABLE t--}, 'a name is data, never SQL');
$c->wait_applied($c->create_point('x' x 63));
pass('63 bytes are a name');

done_testing();
