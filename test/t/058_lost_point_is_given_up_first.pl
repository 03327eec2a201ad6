
# A segment that has reported a point as staged does not give it up, when its
# source fails over to a standby that lacks it, before the orchestrator knows:
# a decision to release it may be under way, and the others would go there.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('give_up', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('one'));

my $standby = $c->stage_lost_point(0);

# what the orchestrator was told last is that all segments have it
my $orchestrator = $c->remote_sql(-1, q{SELECT pid FROM multisite_status WHERE worker = 'orchestrator'});
kill 'STOP', $orchestrator;
$c->fail_over(0, $standby);
$c->sql(0, 'INSERT INTO t SELECT generate_series(101, 1100)');
$c->wait_for($c->remote(0), q{SELECT reason LIKE 'waits for the orchestrator to give up points%'
	FROM multisite_status WHERE worker = 'receiver'});
is($c->remote(0)->safe_psql('postgres', q{SELECT state FROM multisite_consistency_points WHERE name = 'lost'}), 'staged',
	'the segment keeps the point while the orchestrator does not know');

# not even a new attempt of its worker forgets that
my $receiver = $c->remote(0)->safe_psql('postgres', q{SELECT pid FROM multisite_status WHERE worker = 'receiver'});
kill 'TERM', $receiver;
$c->wait_for($c->remote(0), qq{SELECT pid <> $receiver AND reason LIKE 'waits for the orchestrator to give up points%'
	FROM multisite_status WHERE worker = 'receiver'});
kill 'CONT', $orchestrator;

$c->wait_for($c->remote(0), q{SELECT state = 'passed' FROM multisite_consistency_points WHERE name = 'lost'});
pass('the point is void once it knows');
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_applied($c->create_point('new'));
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'and the site goes on with the next one');

done_testing();
