
# Every server of both sites is restarted, and every worker killed, in the
# middle of a load: no gap, no duplicate, and the remote equals the source.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Load;
use Multisite;
use Pipe;

my $c = Multisite->new('restart', segments => 1, durable => 1);
my $worker_pid = q{SELECT pid FROM multisite_status WHERE worker = '%s'};

$c->start_source;
$c->sql($_, 'CREATE TABLE t (n serial PRIMARY KEY, what text)') foreach $c->ids;
my $clients = Load->new($c);
$c->start_remote;
$c->wait_applied($c->create_point);
$clients->start;

# Beside what the clients do all the time; returns while it is under way to the
# remote site.
sub load
{
	my ($rows) = @_;

	is(join(' ', $clients->stuck(60)), '', 'all clients commit');
	$c->sql($_, "INSERT INTO t (what) SELECT md5(i::text) FROM generate_series(1, $rows) i") foreach $c->ids;
}

# Ends a worker the hard way; its server goes through crash recovery.
sub kill_worker
{
	my ($node, $worker) = @_;
	my $pid = $node->safe_psql('postgres', sprintf($worker_pid, $worker));

	like($pid, qr/^\d+$/, $node->name . ": the $worker runs");
	load(5000);
	kill 'KILL', $pid;
	$c->wait_for($node, "SELECT pid <> $pid FROM multisite_status WHERE worker = '$worker'");
}

sub point_arrives
{
	my ($what) = @_;
	my $point;

	# right after a crash the coordinator may not be ready yet
	$c->wait_for($c->source(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
	$point = $c->create_point;
	$c->wait_applied($point);
	pass("$what: the next point arrives");
}

foreach my $node (map { $c->source($_) } $c->ids)
{
	kill_worker($node, 'publisher');
	point_arrives($node->name . ', publisher killed');
	load(20000);
	$node->restart;
	point_arrives($node->name . ' restarted');
}
kill_worker($c->source(-1), 'points');
point_arrives('point manager killed');

foreach my $node (map { $c->remote($_) } $c->ids)
{
	kill_worker($node, 'receiver');
	point_arrives($node->name . ', receiver killed');
	load(20000);
	$node->restart;
	point_arrives($node->name . ' restarted');
}
kill_worker($c->remote(-1), 'orchestrator');
point_arrives('orchestrator killed');

# a power cut at both sites while WAL is under way
load(50000);
$c->cut($c->remote($_)) foreach $c->ids;
$c->cut($c->source($_)) foreach $c->ids;
$c->source($_)->start foreach $c->ids;
$c->remote($_)->start foreach $c->ids;
point_arrives('power cut at both sites');

$clients->stop;
point_arrives('the clients have ended');

# a receiver may have lost Kafka for a while, but never had to refuse WAL
my $refusal = qr/multisite receiver failed: (?!Kafka does not answer).*/;
my %known = $clients->known;
foreach my $id ($c->ids)
{
	foreach my $table ('t', 'link')
	{
		my $digest = $c->digest($c->source($id), $table);

		unlike($digest, qr/^0\|/, "segment $id: there is something in $table");
		is($c->digest($c->remote($id), $table), $digest, "segment $id: $table equals the source's");
	}
	is(join("\n", slurp_file($c->remote($id)->logfile) =~ /$refusal/g), '', "segment $id refused nothing");
}
is(join("\n", $clients->torn(map { $c->remote($_) } $c->ids)), '', 'no link is missing');
is(join(' ', grep { $clients->{max}{$_} < $known{$_} } keys %known), '', 'each client finds what it knows to be committed');

# the pipes themselves, up to what their servers had flushed before
foreach my $id ($c->ids)
{
	my $topic = "$c->{cluster}.main.wal.$id";
	my $flushed = $c->sql($id, 'SELECT pg_current_wal_flush_lsn()');

	$c->wait_for($c->source($id), "SELECT published_lsn >= '$flushed' FROM multisite_status WHERE worker = 'publisher'");
	my @pipe = Pipe::messages($c->{brokers}, $topic);
	my ($end, @problems) = Pipe::follow(@pipe);
	is(join("\n", @problems), '', "segment $id: each message of its pipe continues the one before it");
	cmp_ok($end, '>=', $c->sql($id, "SELECT pg_wal_lsn_diff('$flushed', '0/0')"), 'up to its end');
	# when it was made, killed, restarted, and its server cut off
	cmp_ok(scalar(grep { $_->{kind} eq 'claim' } @pipe), '>=', 4, 'each new publisher has claimed it');

	# that can fail: without any one of its messages, or with one changed, it is
	# not whole; of a claim's last, what the next one begins with may be the same
	my @wal = grep { $pipe[$_]{kind} eq 'wal' } 0 .. $#pipe;
	my $last = $wal[-1];
	@wal = grep { $_ < $#pipe && $pipe[ $_ + 1 ]{kind} eq 'wal' && $pipe[ $_ + 1 ]{epoch} == $pipe[$_]{epoch} } @wal;
	cmp_ok(scalar @wal, '>', 10, 'of many');
	my %unseen = map { $_ => 0 } ('missing', 'too short', 'twice', 'of the next claim');
	foreach my $i (@wal)
	{
		my @before = @pipe[ 0 .. $i - 1 ];
		my @after = @pipe[ $i + 1 .. $#pipe ];
		my $m = $pipe[$i];
		my %mutant = (
			'missing' => [],
			'too short' => [ { %$m, length => $m->{length} - 1 } ],
			'twice' => [ $m, $m ],
			'of the next claim' => [ { %$m, epoch => $m->{epoch} + 1 } ]);

		foreach my $how (keys %mutant)
		{
			my (undef, @found) = Pipe::follow(@before, @{ $mutant{$how} }, @after);
			$unseen{$how}++ unless @found;
		}
	}
	is_deeply(\%unseen, { map { $_ => 0 } keys %unseen }, 'a message that is ' . join(', or ', sort keys %unseen) . ' is seen');
	my ($shorter) = Pipe::follow(@pipe[ 0 .. $last - 1 ]);
	cmp_ok($shorter, '<', $end, 'and so is one that is missing at the end');
	my @claims = grep { $pipe[$_]{kind} eq 'claim' } 0 .. $#pipe;
	my (undef, @found) = Pipe::follow(@pipe[ grep { $_ != $claims[-1] } 0 .. $#pipe ]);
	isnt(join("\n", @found), '', 'and a claim that is missing');
}
like('LOG:  multisite receiver failed: WAL is missing in topic "x"', $refusal, 'a refusal in the log would be seen, too');

done_testing();
