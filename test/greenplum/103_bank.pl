
# Bank, on Greenplum: transfers between accounts on different segments, by
# distributed transactions of the coordinator.  At every point no money is made
# or lost, nothing is in doubt, and what a client had committed before what it
# committed next is there.  And the checker that says so is not blind.

use strict;
use warnings;

use Test::More;

use Greenplum;
use GreenplumBank;

my $c = Greenplum->new('bank', conf => GreenplumBank->conf);

$c->start_source;
my $bank = GreenplumBank->new($c);
$c->start_remote;
# as in 105, where this makes a torn cut at once
$c->delay_restore_point(1, 0.05);
$bank->start;

sub is_whole
{
	my ($point) = @_;
	return is(join('; ', $bank->torn), '', "$point is whole");
}

my $points = $ENV{MULTISITE_TEST_LONG} ? 400 : 25;
my $behind;
foreach my $n (1 .. $points)
{
	my $point = $c->create_point;
	$c->wait_applied($point);
	is_whole($point);
	# one segment as it is at this point, for the control below
	$behind = $c->copy_remote(0) if $n == $points - 5;
}
my $last = $c->create_point('last');
$c->wait_applied($last, 'staged');
note('commits waited for (longest|median, ms): ' . $c->sql('SELECT max(barrier_ms)::int,
	percentile_disc(0.5) WITHIN GROUP (ORDER BY barrier_ms)::int FROM multisite_consistency_points'));
$c->cut_source;
$c->stop_clients;

my ($name) = $c->promote;
is($name, $last, 'promoted at the last point');
is_whole($last);

# a control: one segment promoted at another point than the rest
$c->start($behind);
Greenplum::command('pg_ctl', '-D', $behind->{dir}, '-w', '-t', $Greenplum::timeout, 'promote');
my @torn = $bank->torn(0 => $behind);
cmp_ok(scalar(grep { /has step \d+ and not \d+/ } @torn), '>', 0,
	'a segment that was promoted at another point than the rest is seen: ' . scalar(@torn) . ' faults');
cmp_ok(scalar(grep { /^transfer \S+ has 1 legs/ } @torn), '>', 0, 'by transfers with one leg, too');
$c->stop($behind);

$c->configure;
is($c->remote_sql('SELECT sum(balance) FROM account'), $bank->total, 'after promotion the total is the same');
is($c->remote_sql('SELECT sum(amount), count(*) % 2 FROM leg'), '0|0', 'every transfer has both of its legs');
cmp_ok($c->remote_sql('SELECT count(*) FROM leg'), '>', 100, 'there were transfers');
is($c->remote_sql(q{SELECT count(*) FROM gp_dist_random('pg_prepared_xacts')}), '0', 'nothing is in doubt');

# more controls: a single row of one segment is wrong
is_whole('the site before it is tampered with');
my $segment = $c->server('dr', 1);
$c->query($segment, 'UPDATE account SET balance = balance + 1 WHERE id = (SELECT min(id) FROM account)');
is(join('; ', $bank->torn), 'the total is ' . ($bank->total + 1), 'a changed balance is seen');
$c->query($segment, 'UPDATE account SET balance = balance - 1 WHERE id = (SELECT min(id) FROM account)');
my ($step) = split /\n/, $c->query($segment, 'SELECT client, n FROM step ORDER BY n LIMIT 1');
my ($client, $n) = split /\|/, $step;
$c->query($segment, "DELETE FROM step WHERE client = $client AND n = $n");
like(join('; ', $bank->torn), qr/^client $client has step \d+ and not $n\z/, 'a lost step is seen');
$c->query($segment, "INSERT INTO step VALUES ($client, $n)");
$c->query($segment, 'DELETE FROM leg WHERE (account, client, n) IN (SELECT account, client, n FROM leg LIMIT 1)');
like(join('; ', $bank->torn), qr/^transfer \S+ has 1 legs\z/, 'a lost leg is seen');

done_testing();
