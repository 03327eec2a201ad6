
# A setting that was wrong and is corrected by a reload reaches whoever waits
# because of it: for a topic that will never be there, or for a broker that does
# not answer.  Who asks meanwhile is told the reason at once.

use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $c = Multisite->new('reload', segments => 1);
my $other = Kafka->new;

sub says
{
	my ($id, $worker, $what) = @_;

	$c->wait_for($c->remote($id), "SELECT reason LIKE '$what' FROM multisite_status WHERE worker = '$worker'");
}

sub set
{
	my ($node, $setting) = @_;

	$node->append_conf('postgresql.conf', $setting);
	$node->reload;
}

# What a call of the remote coordinator's says, which must not take long.
sub refused
{
	my ($call, $why, $what) = @_;
	my $begin = time;
	my ($status, $out, $err) = $c->remote(-1)->psql('postgres', "SELECT $call");

	like($err, $why, $what);
	cmp_ok(time - $begin, '<', 30, 'at once');
}

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;

# from the first start on: a site that does not exist, and another Kafka
$c->init_remote(-1, source_site => 'mian')->start;
$c->init_remote(0, conf => "multisite.brokers = '" . $other->brokers . "'\n")->start;
$c->register(0, 'dr');
says(-1, 'receiver', 'waits for topic %.mian.wal.-1,%');
says(-1, 'orchestrator', 'waits for topic %.mian.points,%');
says(0, 'receiver', 'waits for topic %.main.wal.0,%');
refused($_, qr/waits for topic .*\.mian\.points/, "$_ says what is waited for")
  foreach 'multisite_pause()', 'multisite_promote()';

# and one that forbids to follow, which matters once the topic is there
set($c->remote(0), q{primary_conninfo = 'host=/nowhere'});
says(0, 'receiver', '"primary_conninfo" is set%');
set($c->remote(0), q{primary_conninfo = ''});
says(0, 'receiver', 'waits for topic %.main.wal.0,%');

set($c->remote(-1), q{multisite.source_site = 'main'});
set($c->remote(0), "multisite.brokers = '$c->{brokers}'");
$c->wait_applied($c->create_point('one'));
pass('all follow once the settings are right');

# under a running remote
set($c->remote(-1), q{multisite.source_site = 'mian'});
says(-1, 'orchestrator', 'waits for topic %.mian.points,%');
refused('multisite_pause()', qr/waits for topic .*\.mian\.points/, 'the same under a running remote');
set($c->remote(-1), q{multisite.source_site = 'dr'});
says(-1, 'orchestrator', 'a site cannot follow itself%');
refused('multisite_pause()', qr/a site cannot follow itself/, 'a site that follows itself is refused');
set($c->remote(-1), q{multisite.source_site = 'main'});
$c->wait_applied($c->create_point('two'));
is($c->remote_sql(-1, 'SELECT multisite_pause()'), 'two', 'it goes on, and answers');
$c->remote_sql(-1, 'SELECT multisite_resume()');

# a broker that takes connections, and never says a word
my $silent = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1') or die "no port: $!";
set($c->source(-1), q{multisite.brokers = '127.0.0.1:} . $silent->sockport . q{'});
$c->wait_for($c->source(-1), q{SELECT state = 'connecting' AND failing_since IS NOT NULL
	FROM multisite_status WHERE worker = 'points'});
set($c->source(-1), "multisite.brokers = '$c->{brokers}'");
is($c->create_point('three'), 'three', 'who asks after the correction is not answered with the old error');
$c->wait_applied('three');

my ($name) = $c->promote;
is($name, 'three', 'the site can be promoted');

done_testing();
