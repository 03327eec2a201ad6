
# Topics are made as they must be; one that is there and is not as it must be
# is refused by name, with what to do.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('topics');
my $error = q{SELECT last_error FROM multisite_status WHERE worker = 'publisher'};

sub topics
{
	my @command = ("$ENV{MULTISITE_SRC}/test/kafka/broker", 'tool', $ENV{MULTISITE_KAFKA_DIR}, @_);
	my ($out, $err) = run_command(\@command);
	return $out;
}

my $pipe = "$c->{cluster}.main.wal.-1";

# Makes the topic anew while the server is down, or its publisher would.
sub remake_topic
{
	my ($node, @how) = @_;
	my $list = 'x';

	$node->stop;
	topics('org.apache.kafka.tools.TopicCommand', '--delete', '--topic', $pipe);
	# a topic is deleted some time after it is said to be
	for (1 .. 60)
	{
		$list = topics('org.apache.kafka.tools.TopicCommand', '--list');
		last unless $list =~ /^\Q$pipe\E$/m;
	}
	unlike($list, qr/^\Q$pipe\E$/m, 'the topic is gone');
	topics('org.apache.kafka.tools.TopicCommand', '--create', '--topic', $pipe, @how) if @how;
	$node->start;
}

topics('org.apache.kafka.tools.TopicCommand', '--create', '--topic', $pipe, '--partitions', '2');
my $node = $c->init_source(-1);
$node->start;
$c->sql(-1, 'CREATE EXTENSION multisite_repl');
$c->wait_for($node, "SELECT ($error) LIKE '%has 2 partitions%'");
like(slurp_file($node->logfile), qr/HINT:  Delete the topic/, 'a topic of two partitions is refused, with a hint');

remake_topic($node, '--partitions', '1', '--config', 'cleanup.policy=compact');
$c->wait_for($node, "SELECT ($error) LIKE '%cleanup policy \"compact\"%'");
pass('a compacted topic is refused');

remake_topic($node, '--partitions', '1', '--config', 'retention.ms=3600000');
$c->wait_published(-1);
like(slurp_file($node->logfile), qr/Kafka may delete messages of topic "\Q$pipe\E" before every remote site has read them/,
	'a retention that loses unread WAL is warned of');
remake_topic($node);
$c->wait_for($node, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'});
my $described = topics('org.apache.kafka.tools.TopicCommand', '--describe', '--topic', $pipe);
like($described, qr/PartitionCount: 1\s/, 'a topic of ours has one partition');
like($described, qr/retention\.ms=-1/, 'and keeps what nobody has read');
like($described, qr/cleanup\.policy=delete/, 'and is not compacted');

# more copies than there are brokers
$node->append_conf('postgresql.conf', qq{multisite.replication_factor = 3
multisite.cluster_name = '$c->{cluster}_more'});
$node->restart;
$c->wait_for($node, "SELECT ($error) LIKE '%could not create the Kafka topic%'");
like(slurp_file($node->logfile), qr/HINT:  multisite.replication_factor is 3/, 'too few brokers: the hint names the setting');

# no broker at all: the server works, and says so
$node->append_conf('postgresql.conf', q{multisite.brokers = '127.0.0.1:1'});
$node->restart;
$c->sql(-1, 'CREATE TABLE t (a int); INSERT INTO t VALUES (1)');
$c->wait_for($node, "SELECT ($error) LIKE '%Kafka does not answer%'");
my $begin = time();
$node->stop('fast');
cmp_ok(time() - $begin, '<', 10, 'the server stops although no broker can be reached');

done_testing();
