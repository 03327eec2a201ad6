
# Kafka is away: the source goes on working and keeps its WAL, both sites say
# what they wait for, once, and go on by themselves afterwards.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $kafka = PostgreSQL::Test::Utils::tempdir();
my $broker = "$ENV{MULTISITE_SRC}/test/kafka/broker";
my $port = PostgreSQL::Test::Cluster::get_free_port();

my ($brokers) = run_command([ $broker, 'start', $kafka, $port ]);
my $c = Multisite->new('outage', brokers => $brokers, conf => "wal_sender_timeout = 3s\n");

$c->start_source;
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->wait_applied($c->create_point('before'));

run_command([ $broker, 'node-kill', $kafka, 0 ]);
$c->sql(-1, 'INSERT INTO t SELECT generate_series(1, 300000)');
$c->wait_for($c->source(-1), q{SELECT state IN ('blocked', 'failed') FROM multisite_status WHERE worker = 'publisher'});
pass('the publisher says that it cannot go on');
$c->wait_for($c->remote(-1), q{SELECT state IN ('connecting', 'failed') AND reason ~ 'Kafka'
	FROM multisite_status WHERE worker = 'receiver'});
pass('the receiver, too');
my ($status, $out, $err) = $c->source(-1)->psql('postgres', q{SELECT multisite_create_consistency_point('during')});
isnt($status, 0, 'no point without Kafka');
like($err, qr/Kafka does not answer|Kafka/, 'and the error says why');
$c->sql(-1, 'INSERT INTO t VALUES (0)');
pass('commits go on');
like($err, qr/HINT:  Consistency point "during" may still appear/, 'nor that there will be none');

# longer than wal_sender_timeout
$c->sql(-1, 'SELECT pg_sleep(5)');
run_command([ $broker, 'node-start', $kafka, 0 ]);
$c->wait_published(-1);
my $point = $c->create_point('after');
$c->wait_applied($point);
is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), 'nothing is lost');
like($c->sql(-1, q{SELECT state FROM multisite_consistency_points WHERE name = 'during'}), qr/^(?:created|applied)$/,
	'the point that was given up is either there or not');
unlike(slurp_file($c->source(-1)->logfile), qr/terminating walsender process due to replication timeout/,
	'the publisher went on answering the walsender');
foreach my $node ($c->source(-1), $c->remote(-1))
{
	my @complaints = slurp_file($node->logfile) =~ /multisite (?:publisher|receiver) failed/g;
	cmp_ok(scalar(@complaints), '<=', 3, $node->name . ': the outage is not logged again and again');
}
run_command([ $broker, 'stop', $kafka ]);

done_testing();
