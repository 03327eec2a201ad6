
# Bank: transfers between accounts on different segments, by two-phase commit.
# At every point, and after promotion, no money is made or lost, once what is
# in doubt is resolved by the rule: committed anywhere means commit.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Checker;
use Multisite;

my $c = Multisite->new('bank', segments => 3);
my $checker = Checker->new($c, clients => 4);
my @ids = $c->ids;
my $total = 1000 * @ids;

# leg: one half of a transfer, written by the transaction that moves the money
$c->start_source;
$c->sql($_, q{
	CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) WITH (vacuum_truncate = off);
	INSERT INTO account SELECT i, 100 FROM generate_series(1, 10) i;
	CREATE TABLE leg (gid text PRIMARY KEY, amount bigint NOT NULL) WITH (vacuum_truncate = off)}) foreach @ids;
$c->start_remote;

$checker->start(
	sub {
		my ($client, $sessions, $n, $log) = @_;
		my $from = int(rand(@ids));
		my $to = ($from + 1 + int(rand(@ids - 1))) % @ids;
		my $amount = 1 + int(rand(10));
		my $gid = "t_${client}_$n";
		my %legs = ($ids[$from] => -$amount, $ids[$to] => $amount);

		foreach my $id (sort keys %legs)
		{
			my $account = 1 + int(rand(10));
			return 0 unless $sessions->{$id}->query("BEGIN;
				UPDATE account SET balance = balance + $legs{$id} WHERE id = $account;
				INSERT INTO leg VALUES ('$gid', $legs{$id})") =~ /INSERT 0 1$/;
			$log->("begin $gid $id $legs{$id}");
		}
		foreach my $id (sort keys %legs)
		{
			return 0 unless $sessions->{$id}->query("PREPARE TRANSACTION '$gid'") =~ /PREPARE TRANSACTION/;
		}
		foreach my $id (sort keys %legs)
		{
			return 0 unless $sessions->{$id}->query("COMMIT PREPARED '$gid'") =~ /COMMIT PREPARED/;
		}
		return 1;
	});

# The legs that a point has, and the other leg of each, by the clients' notes.
sub look
{
	my ($point) = @_;
	my %amount;
	my %here = $checker->remote_columns('SELECT gid FROM leg');
	my $sum = 0;
	my $in_doubt = 0;

	$sum += $c->remote_sql($_, 'SELECT sum(balance) FROM account') foreach @ids;
	foreach my $line ($checker->logged)
	{
		$amount{$1}{$2} = $3 if $line->[2] =~ /^begin (\S+) (\S+) (\S+)$/;
	}
	my %present;
	foreach my $id (@ids)
	{
		$present{$_}{$id} = 1 foreach @{ $here{$id} };
	}
	foreach my $gid (keys %present)
	{
		foreach my $id (grep { !$present{$gid}{$_} } keys %{ $amount{$gid} })
		{
			# committed there, so it is in doubt here; a standby does not show
			# its prepared transactions, so that is seen after the promotion
			$sum += $amount{$gid}{$id};
			$in_doubt++;
		}
	}
	is($sum, $total, "$point: the total is the same, with $in_doubt in doubt");
	return 1;
}

$checker->each_point($checker->points(15), \&look);
my $last = $c->create_point('last');
$c->wait_applied($last, 'staged');
$c->cut_source;
append_to_file("$checker->{dir}/stop", '');
waitpid($_, 0) foreach @{ $checker->{pids} };
my ($name) = $c->promote;
is($name, $last, 'promoted at the last point');

# what is in doubt, by the rule; what is left was committed nowhere
my $resolved = $c->remote_sql(-1, q{SELECT count(*) FROM multisite_resolve_in_doubt() WHERE done});
is($c->remote_sql(-1, q{SELECT count(*) FROM multisite_in_doubt WHERE verdict <> 'unknown' OR committed_on <> '{}'}), '0',
	'all is resolved whose outcome is known');
my %committed;
foreach my $id (@ids)
{
	$committed{$_} = 1 foreach split /\n/, $c->remote_sql($id, 'SELECT gid FROM leg');
}
foreach my $gid (split /\n/, $c->remote_sql(-1, 'SELECT gid FROM multisite_in_doubt'))
{
	ok(!$committed{$gid}, "$gid is left, and is committed nowhere");
}
my $sum = 0;
my $legs = 0;
$sum += $c->remote_sql($_, 'SELECT sum(balance) FROM account') foreach @ids;
$legs += $c->remote_sql($_, 'SELECT count(*) FROM leg') foreach @ids;
is($sum, $total, "after promotion and $resolved resolved the total is the same");
is($legs % 2, 0, 'every transfer has both of its legs');
cmp_ok($legs, '>', 20, "there were transfers ($legs legs)");

done_testing();
