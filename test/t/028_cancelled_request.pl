
# A session that asks a worker for something and does not wait for the end
# (cancelled, or lost) is in nobody's way.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('request', conf => q{multisite.barrier_timeout = '3s'});

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');

# a commit that does not end keeps a point from being made
my $source = $c->source(-1);
$source->append_conf('postgresql.conf', q{synchronous_standby_names = 'nobody'});
$source->reload;
$c->wait_for($source, q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
my $stuck = Session->new($source);
$stuck->begin('INSERT INTO t VALUES (1)');
$c->wait_for($source, q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $stuck->pid);

foreach my $how ('cancel', 'terminate')
{
	my $asker = Session->new($source);

	$asker->begin('SELECT multisite_create_consistency_point()');
	$c->wait_for($source, q{SELECT state = 'running' FROM multisite_status WHERE worker = 'points'});
	$c->sql(-1, "SELECT pg_${how}_backend(" . $asker->pid . ')');
	like($asker->end, qr/canceling statement|terminating connection/, "a session that waits for a point answers $how");
	$c->wait_for($source, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
}

$source->append_conf('postgresql.conf', q{synchronous_standby_names = ''});
$source->reload;
is($stuck->end, 'INSERT 0 1', 'the commit ends');
my $made = Session->new($source)->query(q{SET statement_timeout = '30s'; SELECT multisite_create_consistency_point('next')});
is($made, "SET\nnext", 'and the next session is served');

done_testing();
