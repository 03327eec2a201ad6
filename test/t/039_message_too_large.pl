
# A topic takes no message as large as the publisher's any more: the error
# says which setting of which topic, the pipe gets no hole, and the publisher
# goes on by itself when the setting is right again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;
use Pipe;

my $kafka = Kafka->new;
my $c = Multisite->new('large', brokers => $kafka->brokers, conf => q{
autovacuum = off
multisite.compression = 'none'
});
my $pipe = "$c->{cluster}.main.wal.-1";

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int, b text)');
$c->start_remote;
$c->wait_applied($c->create_point('one'));

# small messages pass, large ones do not, and more small ones come behind them
$kafka->configure($pipe, 'max.message.bytes=20000');
for my $i (1 .. 20)
{
	$c->sql(-1, "INSERT INTO t SELECT i, repeat(md5((i * $i)::text), 10) FROM generate_series(1, 2000) i");
	$c->sql(-1, "INSERT INTO t VALUES ($i, pg_sleep(0.01)::text)") for 1 .. 5;
}
$c->wait_for($c->source(-1), qq{SELECT state = 'failed' AND reason LIKE 'Kafka topic "$pipe" does not take messages as large as ours (%max.message.bytes%'
	FROM multisite_status WHERE worker = 'publisher'});
pass('the publisher names the topic and the setting');
like(slurp_file($c->source(-1)->logfile), qr/HINT:  Set max\.message\.bytes of the topic to \d+ or more/, 'and says what to do');
# more attempts, which must not leave holes either
$c->sql(-1, 'INSERT INTO t VALUES (0); SELECT pg_sleep(1)') for 1 .. 4;
$c->create_point('two');
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('two', 'released', '1 s')}), 'f', 'no point is released without its WAL');

$kafka->configure($pipe, 'max.message.bytes');
$c->wait_applied('two');
pass('it goes on by itself');
is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), 'the remote equals the source');

my (undef, @problems) = Pipe::follow($kafka->messages($pipe));
is(join("\n", @problems), '', 'and the pipe has no hole');

done_testing();
