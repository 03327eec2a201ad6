
# The pipe's topic is deleted while all is at work: the publisher makes it
# anew and goes on, and no remote that lacks what is lost goes on in silence.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('anew', brokers => $kafka->brokers);
my $pipe = "$c->{cluster}.main.wal.-1";

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->start_remote;
# a claim with a greater number than the first one's
$c->source(-1)->restart;
$c->wait_published(-1);
$c->wait_applied($c->create_point('one'));
my $digest = $c->digest($c->source(-1), 't');
my $read = scalar $kafka->messages($pipe);

# the remote is away while the topic is deleted and grows beyond what it had read
$c->remote(-1)->stop;
$kafka->tool('TopicCommand', '--delete', '--topic', $pipe);
$c->wait_for($c->source(-1), qq{SELECT count(*) >= 0 FROM multisite_status});
for my $i (1 .. 10)
{
	$c->sql(-1, "INSERT INTO t SELECT generate_series(1, 50000)");
}
$c->wait_for($c->source(-1), q{SELECT state = 'waiting' AND published_lsn >= pg_current_wal_flush_lsn()
	FROM multisite_status WHERE worker = 'publisher'});
pass('the publisher goes on by itself, in a new topic');
cmp_ok(scalar $kafka->messages($pipe), '>', $read, 'which has more messages than the old one had');

$c->remote(-1)->start;
$c->wait_for($c->remote(-1), qq{SELECT state = 'failed' AND reason LIKE 'topic "$pipe" was made anew%'
	FROM multisite_status WHERE worker = 'receiver'});
pass('the remote says that its topic was made anew');
$c->sql(-1, q{SELECT multisite_create_consistency_point('two')});
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('two', 'released', '3 s')}), 'f', 'and releases nothing');
my ($name) = $c->promote;
is($name, 'one', 'it can be promoted');
is($c->digest($c->remote(-1), 't'), $digest, 'at its last point');

done_testing();
