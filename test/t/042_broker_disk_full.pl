
# The broker's disk is full, so that it ends.  Both sites say what they wait
# for, the source goes on working, and when there is room again and the broker
# is started all goes on by itself; the pipe has no hole, and nothing is
# damaged.

use strict;
use warnings;

use OwnMounts;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;
use Pipe;

plan skip_all => $OwnMounts::missing if $OwnMounts::missing;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $disk = "$dir/node0/data";

mkdir("$dir/node0") && mkdir($disk) or die $!;
system_or_bail('mount', '-t', 'tmpfs', '-o', 'size=40M,mode=700', 'none', $disk);

my $kafka = Kafka->new(dir => $dir);
my $c = Multisite->new('brokerfull', brokers => $kafka->brokers, conf => q{
autovacuum = off
multisite.compression = 'none'
});
my $pipe = "$c->{cluster}.main.wal.-1";

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int, b text)');
$c->start_remote;
$c->wait_applied($c->create_point('one'));
my $digest = $c->digest($c->source(-1), 't');

# more WAL than the broker has room for
my $blocked = q{SELECT state IN ('blocked', 'failed') AND reason ~ 'Kafka' FROM multisite_status WHERE worker = 'publisher'};
for (1 .. 20)
{
	$c->sql(-1, 'INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 200000) i');
	last if $c->sql(-1, $blocked) eq 't';
}
$c->wait_for($c->source(-1), $blocked);
pass('the publisher says that it waits for Kafka');
my $free = `df --output=avail -k $disk | tail -1` + 0;
cmp_ok($free, '<', 1024, "the broker's disk is full: $free kB are free");
$c->wait_for($c->remote(-1), q{SELECT state IN ('connecting', 'failed') AND reason ~ 'Kafka' FROM multisite_status WHERE worker = 'receiver'});
pass('and so does the receiver');
$c->sql(-1, q{INSERT INTO t VALUES (0, 'commits go on')});
is($c->digest($c->remote(-1), 't'), $digest, 'the remote stays at its point');

# room again; a broker that has lost its disk has to be started again
system_or_bail('mount', '-o', 'remount,size=400M', $disk);
$kafka->kill(0);
$kafka->start(0);
$c->wait_for($c->source(-1), q{SELECT state = 'waiting' AND published_lsn >= pg_current_wal_flush_lsn()
	FROM multisite_status WHERE worker = 'publisher'});
$c->wait_applied($c->create_point('two'));
is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), 'the remote equals the source');

my (undef, @problems) = Pipe::follow($kafka->messages($pipe));
is(join("\n", @problems), '', 'the pipe has no hole');
is($c->remote_sql(-1, q{SELECT count(*) FROM multisite_status WHERE last_error ~ 'invalid|missing|two versions'}), '0', 'and nothing was damaged');

# so that the directory can be removed
$kafka->stop;
system_or_bail('umount', $disk);

done_testing();
