
# The source fails over to a standby that lacks what a staged point holds: that
# point is void, and the site goes on with the next one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('lag', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('one'));

my $standby = $c->stage_lost_point(0);
$c->fail_over(0, $standby);
$c->sql(0, 'INSERT INTO t SELECT generate_series(101, 1100)');
$c->create_point('new');
$c->wait_for($c->remote(0), q{SELECT state = 'passed' FROM multisite_consistency_points WHERE name = 'lost'});
like(slurp_file($c->remote(0)->logfile), qr/consistency point "lost" is void/, 'the lost point is void, and the log says so');
$c->wait_applied('new', 'staged');
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('lost')});
like($err, qr/"lost" cannot be used at this site/, 'the site cannot be promoted at it');
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_applied('new');
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'the next point arrives, without what was lost');

done_testing();
