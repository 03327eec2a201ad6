
# DROP EXTENSION on the source coordinator takes the registry of segments with
# it.  A point made without it would name the coordinator alone, and the remote
# coordinator would run ahead of its segments: so none is made.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('dropped', segments => 1, conf => "multisite.consistency_point_interval = '200ms'\n");

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point('one'));

my $log = -s $c->source(-1)->logfile;
$c->sql(-1, 'DROP EXTENSION multisite_repl');
$c->sql($_, 'INSERT INTO t VALUES (1)') foreach $c->ids;
my $failed = 0;
for (1 .. 600)
{
	last if $failed = slurp_file($c->source(-1)->logfile, $log) =~ /multisite points failed: .*extension/;
	$c->sql(-1, 'INSERT INTO t VALUES (2); SELECT pg_sleep(0.1)');
}
ok($failed, 'the point manager says what is missing');
$c->sql(-1, 'INSERT INTO t VALUES (2)');

$c->sql(-1, 'CREATE EXTENSION multisite_repl');
$c->register($_, $_ < 0 ? () : 'main') foreach grep { $_ >= 0 } $c->ids;
$c->register(0, 'dr');
$c->sql($_, 'INSERT INTO t VALUES (3)') foreach $c->ids;
my $point = $c->create_point('two');
# the remote has lost it, too, if a point under way had the DROP in it; what
# was written behind the CREATE tells that it is there again
$c->wait_for($c->remote(-1), 'SELECT EXISTS (SELECT FROM t WHERE a = 3)');
$c->wait_applied($point);
is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "segment $_ equals the source again") foreach $c->ids;

done_testing();
