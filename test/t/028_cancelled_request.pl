
# A session that asks a worker for something and does not wait for the end
# (cancelled, or lost) is in nobody's way.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('request');

$c->start_source;

# the worker reads the registry of segments for each point
my $source = $c->source(-1);
my $blocker = Session->new($source);

foreach my $how ('cancel', 'terminate')
{
	my $asker = Session->new($source);

	$blocker->query('BEGIN; LOCK TABLE multisite.segment');
	$asker->begin('SELECT multisite_create_consistency_point()');
	$c->wait_for($source, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'multisite.segment'::regclass AND NOT granted});
	$c->sql(-1, "SELECT pg_${how}_backend(" . $asker->pid . ')');
	like($asker->end, qr/canceling statement|terminating connection/, "a session that waits for a point answers $how");
	$blocker->query('COMMIT');
	$c->wait_for($source, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
}

# the worker, too, ends in the middle of a request that nobody waits for any more
{
	my $asker = Session->new($source);

	$blocker->query('BEGIN; LOCK TABLE multisite.segment');
	$asker->begin('SELECT multisite_create_consistency_point()');
	$c->wait_for($source, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'multisite.segment'::regclass AND NOT granted});
	$c->sql(-1, 'SELECT pg_cancel_backend(' . $asker->pid . ')');
	like($asker->end, qr/canceling statement/, 'the session leaves');
	my $pid = $c->sql(-1, q{SELECT pid FROM multisite_status WHERE worker = 'points'});
	$c->sql(-1, "SELECT pg_terminate_backend($pid)");
	$c->wait_for($source, "SELECT pid <> $pid FROM multisite_status WHERE worker = 'points'");
	$blocker->query('COMMIT');
	$c->wait_for($source, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
	is($asker->query(q{SET statement_timeout = '30s'; SELECT multisite_create_consistency_point('after the end')}),
		"SET\nafter the end", 'then the worker is ended, and the next one serves the next session');
}

# a receiver that has staged nothing, and Kafka away: nobody waits for ever, and
# what was asked for is not done later
my $nowhere = Multisite->new('nowhere', brokers => '127.0.0.1:1');
my $standby;
{
	local $nowhere->{source} = { -1 => $source };
	$standby = $nowhere->init_remote(-1, conf => "multisite.brokers = '127.0.0.1:1'\n");
	$standby->start;
}
my $error = '';
$standby->psql('postgres', q{SET statement_timeout = '3s'; SELECT * FROM multisite.staged_points()}, stderr => \$error);
like($error, qr/staged nothing yet|statement timeout/, 'a segment that has nothing says so, or the call ends');
$standby->append_conf('postgresql.conf', "multisite.brokers = '$ENV{MULTISITE_BROKERS}'");
$standby->reload;
$c->wait_for($standby, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'receiver'});
pass('and it follows as soon as it can');

my $made = Session->new($source)->query(q{SET statement_timeout = '30s'; SELECT multisite_create_consistency_point('next')});
is($made, "SET\nnext", 'and the next session is served');

done_testing();
