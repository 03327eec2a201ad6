
# Bank, on Greenplum: at every point no money is made or lost, nothing is in
# doubt, and what a client had committed before what it committed next is there.

use strict;
use warnings;

use Test::More;

use Greenplum;
use GreenplumBank;

my $c = Greenplum->new('bank');

$c->start_source;
my $bank = GreenplumBank->new($c);
$c->start_remote;
$bank->start;
foreach (1 .. ($ENV{MULTISITE_TEST_LONG} ? 400 : 25))
{
	my $point = $c->create_point;
	$c->wait_applied($point);
	is(join('; ', $bank->torn), '', "$point is whole");
}
my $last = $c->create_point('last');
$c->wait_applied($last, 'staged');
note('commits waited for (longest|median, ms): ' . $c->sql('SELECT max(barrier_ms)::int,
	percentile_disc(0.5) WITHIN GROUP (ORDER BY barrier_ms)::int FROM multisite_consistency_points'));
$c->cut_source;
$c->stop_clients;

my ($name) = $c->promote;
is($name, $last, 'promoted at the last point');
is(join('; ', $bank->torn), '', 'which is whole');
$c->configure;
is($c->remote_sql('SELECT sum(balance) FROM account'), '4000', 'after promotion the total is the same');
is($c->remote_sql('SELECT sum(amount), count(*) % 2 FROM leg'), '0|0', 'every transfer has both of its legs');
cmp_ok($c->remote_sql('SELECT count(*) FROM leg'), '>', 100, 'there were transfers');
is($c->remote_sql(q{SELECT count(*) FROM gp_dist_random('pg_prepared_xacts')}), '0', 'nothing is in doubt');

done_testing();
