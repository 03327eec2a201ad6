
# With multisite.prune, WAL that all remote sites have applied leaves Kafka, and
# nothing that one of them still needs, be it paused or away.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use Multisite;

my $c = Multisite->new('prune', conf => q{
autovacuum = off
multisite.prune = on
multisite.prune_margin = 0
});
my $pipe = "$c->{cluster}.main.wal.-1";

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int, b text)');
$c->start_remote;
my $other = $c->init_remote(-1, site => 'other');
$other->start;

# The first offset that the pipe still has.
sub first_offset
{
	my ($out) = run_command([ "$ENV{MULTISITE_SRC}/test/kafka/broker", 'tool', $ENV{MULTISITE_KAFKA_DIR},
		'org.apache.kafka.tools.GetOffsetShell', '--topic', $pipe, '--time', '-2' ]);
	my ($offset) = $out =~ /:0:(\d+)/;
	return $offset // die "no offset: $out";
}

sub load
{
	my ($k) = @_;
	$c->sql(-1, "INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 100000) i; UPDATE t SET a = $k");
	return $c->create_point("point $k");
}

sub on_other
{
	my ($point) = @_;
	is($other->safe_psql('postgres', "SELECT multisite_wait_for_consistency_point('$point', 'applied', '80 s')"), 't', "the other site applies $point");
}

sub wait_until_first_offset_is_past
{
	my ($offset) = @_;
	foreach my $try (1 .. $PostgreSQL::Test::Utils::timeout_default)
	{
		my $now = first_offset();
		return $now if $now > $offset;
		usleep(500_000);
	}
	die "the pipe is not pruned";
}

my $point = load(1);
$c->wait_applied($point);
on_other($point);
my $first = wait_until_first_offset_is_past(0);
cmp_ok($first, '>', 0, 'what both sites have applied is deleted');

# the pipe still says who publishes
$c->source(-1)->restart;
$c->wait_published(-1);

# one site is away, then the other one paused
$other->stop;
$c->wait_applied(load(2));
$c->remote_sql(-1, 'SELECT multisite_pause()');
my $last = load(3);
$c->wait_applied($last, 'staged');
$c->source(-1)->restart;
$c->wait_published(-1);
$c->sql(-1, 'INSERT INTO t VALUES (4)');
$last = $c->create_point('last');
$c->wait_applied($last, 'staged');
$other->start;
on_other($last);
is($c->digest($other, 't'), $c->digest($c->source(-1), 't'), 'a site that was away finds all that it needs');
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_applied($last);
is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), 'so does one that was paused');
cmp_ok(wait_until_first_offset_is_past($first), '>', $first, 'and then that is deleted, too');

# the site that was built first is lost, and built anew
$c->remote(-1)->stop('immediate');
$c->{remote}{-1} = $c->init_remote(-1, node_name => 'prune_rebuilt');
$c->remote(-1)->start;
$c->sql(-1, 'INSERT INTO t VALUES (5)');
$c->wait_applied($c->create_point('rebuilt'));
is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), 'a site can be built from a new base backup');
unlike(slurp_file($c->source(-1)->logfile), qr/could not delete old messages/, 'without complaints');

done_testing();
