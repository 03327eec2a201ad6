
# Bank, on Greenplum: transfers between accounts on different segments, by
# distributed transactions of the coordinator.  At every point no money is made
# or lost, nothing is in doubt, and what a client had committed before what it
# committed next is there.

use strict;
use warnings;

use Test::More;

use Greenplum;

my $c = Greenplum->new('bank');
my $clients = 4;
my $accounts = 40;
my $total = 100 * $accounts;

# step: one row for each commit of a client; alone it is one segment's, and is
# committed there by one phase
$c->start_source;
$c->sql("
	CREATE TABLE account (id int, balance bigint NOT NULL) DISTRIBUTED BY (id);
	INSERT INTO account SELECT i, 100 FROM generate_series(1, $accounts) i;
	CREATE TABLE leg (account int, client int, n int, amount bigint NOT NULL) DISTRIBUTED BY (account);
	CREATE TABLE step (client int, n int) DISTRIBUTED BY (n)");
$c->start_remote;

$c->start_clients($clients, sub {
	my ($session, $client, $n) = @_;
	my $from = 1 + int(rand($accounts));
	my $to = 1 + ($from + int(rand($accounts - 1))) % $accounts;
	my $amount = 1 + int(rand(10));

	return $session->("INSERT INTO step VALUES ($client, " . (2 * $n - 1) . ')') eq '' && $session->("BEGIN;
		UPDATE account SET balance = balance - $amount WHERE id = $from;
		UPDATE account SET balance = balance + $amount WHERE id = $to;
		INSERT INTO leg VALUES ($from, $client, $n, -$amount), ($to, $client, $n, $amount);
		INSERT INTO step VALUES ($client, " . (2 * $n) . ");
		COMMIT") !~ /ERROR:  (?!deadlock)/;
});

# A query on each remote segment by itself.
sub each_segment
{
	my ($sql) = @_;
	return map { split /\n/, $c->query($c->server('dr', $_), $sql) } $c->primaries;
}

sub look
{
	my ($point) = @_;
	my $sum = 0;
	my (%steps, %legs);

	$sum += $_ foreach each_segment('SELECT sum(balance) FROM account');
	is($sum, $total, "$point: the total is the same");
	$legs{$_}++ foreach each_segment('SELECT client, n FROM leg');
	is(scalar(grep { $_ != 2 } values %legs), 0, "$point: every transfer has both of its legs");
	foreach my $line (each_segment('SELECT client, n FROM step'))
	{
		my ($client, $n) = split /\|/, $line;
		$steps{$client}{$n} = 1;
	}
	# a step of an even number is a transfer, which a deadlock may have undone
	foreach my $client (sort keys %steps)
	{
		my ($latest) = sort { $b <=> $a } keys %{ $steps{$client} };
		my @missing = grep { !$steps{$client}{$_} } map { 2 * $_ - 1 } 1 .. ($latest + 1) / 2;
		my @halves = grep { $_ % 2 == 0 && !$legs{"$client|" . $_ / 2} } keys %{ $steps{$client} };

		is("@missing", '', "$point: client $client has all that it did before its last step");
		is("@halves", '', "$point: and each transfer that has its step");
	}
	return;
}

foreach (1 .. ($ENV{MULTISITE_TEST_LONG} ? 400 : 25))
{
	my $point = $c->create_point;
	$c->wait_applied($point);
	look($point);
}
my $last = $c->create_point('last');
$c->wait_applied($last, 'staged');
note('commits waited for (longest|median, ms): ' . $c->sql('SELECT max(barrier_ms)::int,
	percentile_disc(0.5) WITHIN GROUP (ORDER BY barrier_ms)::int FROM multisite_consistency_points'));
$c->cut_source;
$c->stop_clients;

my ($name) = $c->promote;
is($name, $last, 'promoted at the last point');
look($last);
$c->configure;
is($c->remote_sql('SELECT sum(balance) FROM account'), $total, 'after promotion the total is the same');
is($c->remote_sql('SELECT sum(amount), count(*) % 2 FROM leg'), '0|0', 'every transfer has both of its legs');
cmp_ok($c->remote_sql('SELECT count(*) FROM leg'), '>', 100, 'there were transfers');
is($c->remote_sql(q{SELECT count(*) FROM gp_dist_random('pg_prepared_xacts')}), '0', 'nothing is in doubt');

done_testing();
