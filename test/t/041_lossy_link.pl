
# Both sites reach Kafka over links that lose packets and are slow; then over
# links that go silent without an end, for longer than every timeout, while
# servers are connected and while they want to connect.  Points go on arriving
# in the first case, and by themselves after the second; nothing is lost, and
# meanwhile both sites say what they wait for.
#
# --long: silence of 95 s with the timeouts as they are, for each site alone,
# too, and a broker that is down for as long (023 has that for a short time).

use strict;
use warnings;

use PacketLink;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Multisite;

plan skip_all => $PacketLink::missing if $PacketLink::missing;

my $long = $ENV{MULTISITE_TEST_LONG};
my $silence = $long ? 95 : 18;
my $link = PacketLink->new;
my $kafka = Kafka->new(packets => [ 'main', 'dr' ]);
my $c = Multisite->new('lossylink', segments => 1, brokers => $kafka->brokers('main'),
	# below the 18 s
	conf => ($long ? '' : "multisite.kafka_options = 'socket.timeout.ms=4000;socket.connection.setup.timeout.ms=3000'\n"));
my $remote_conf = "multisite.brokers = '" . $kafka->brokers('dr') . "'\n";
my $n = 0;

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int, b text)') foreach $c->ids;
$c->start_remote(conf => $remote_conf);
$c->wait_applied($c->create_point);
# shorter than the silence, too; only now, since base backups may be slow
foreach my $id ($c->ids)
{
	$c->source($id)->append_conf('postgresql.conf', "wal_sender_timeout = 10s\n");
	$c->source($id)->reload;
}

sub write_some
{
	$n++;
	$c->sql($_, "INSERT INTO t SELECT $n, md5((i * $n)::text) FROM generate_series(1, 300) i") foreach $c->ids;
}

sub equal
{
	my ($what) = @_;
	my $until = time() + 150;
	my $point;

	# the point manager may be in its pause after a failure
	until ($point = eval { $c->create_point })
	{
		die "$what: no point can be made: $@" if time() > $until;
		usleep(200_000);
	}
	$c->wait_applied($point);
	is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "$what: segment $_ equals the source") foreach $c->ids;
}

# packets are lost, and late
my $dropped = $link->dropped;
$link->set($kafka->port($_), loss => 0.02, delay => 50) foreach 'main', 'dr';
my $begin = time();
foreach my $k (1 .. ($long ? 60 : 3))
{
	write_some();
	equal("losses $k");
}
note(sprintf('%.1f s a point', (time() - $begin) / ($long ? 60 : 3)));
$dropped = $link->dropped - $dropped;
cmp_ok($dropped, '>', 0, "packets were lost: $dropped");
$link->set($kafka->port($_)) foreach 'main', 'dr';

# The links of some sites are silent.
sub silent
{
	my (@sites) = @_;
	my %is = map { $_ => 1 } @sites;
	my $what = 'silence of ' . join(' and ', @sites);

	$link->set($kafka->port($_), loss => 1) foreach @sites;
	write_some();
	my $until = time() + $silence;
	if ($is{main})
	{
		# one that is connected, and one that wants to connect
		$c->sql(0, q{SELECT pg_terminate_backend(pid) FROM multisite_status WHERE worker = 'publisher'});
		$c->wait_for($c->source($_), q{SELECT state IN ('blocked', 'failed') AND reason ~ 'Kafka'
			FROM multisite_status WHERE worker = 'publisher'}) foreach $c->ids;
		pass("$what: the publishers say that they wait for Kafka");
		# that takes its 30 s
		ok(!eval { $c->create_point; 1 }, "$what: no point can be made") if $long;
	}
	if ($is{dr})
	{
		$c->remote_sql(0, q{SELECT pg_terminate_backend(pid) FROM multisite_status WHERE worker = 'receiver'});
		$c->wait_for($c->remote($_), q{SELECT state IN ('connecting', 'failed') AND reason ~ 'Kafka'
			FROM multisite_status WHERE worker = 'receiver'}) foreach $c->ids;
		pass("$what: the receivers say that they wait for Kafka");
	}
	while (time() < $until)
	{
		write_some();
		usleep(1_000_000);
	}
	pass("$what: commits went on for $silence s");
	$link->set($kafka->port($_)) foreach @sites;
	equal($what);
}

if ($long) { silent('main'); silent('dr'); }
silent('main', 'dr');

if ($long)
{
	my $until = time() + 95;

	# connections are refused
	$kafka->kill(0);
	while (time() < $until)
	{
		write_some();
		usleep(1_000_000);
	}
	is($c->source(-1)->safe_psql('postgres', q{SELECT state IN ('blocked', 'failed') FROM multisite_status WHERE worker = 'publisher'}),
		't', 'broker down: the publisher says so');
	$kafka->start(0);
	equal('broker down');
}

unlike(slurp_file($c->source($_)->logfile), qr/terminating walsender process due to replication timeout/,
	"segment $_: its publisher went on answering the walsender") foreach $c->ids;

done_testing();
