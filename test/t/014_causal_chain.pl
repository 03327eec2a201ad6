
# Causal chain: a client commits on one segment after another's reply.  At no
# point may a later link be present without every earlier one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use CausalChain;
use Multisite;

my $c = Multisite->new('chain', segments => 3);

$c->start_source;
my $chain = CausalChain->new($c, clients => 6);
$c->start_remote;
$chain->start;
$chain->{checker}->each_point(
	$chain->{checker}->points(20),
	sub {
		my ($point) = @_;
		is(join(' ', $chain->torn_chains), '', "$point: no chain is torn");
	});

# the same with a segment whose restore points come late: see 017 for what that
# does without the barrier
$chain->delay_restore_point(1, 0.05);
$chain->{checker}->each_point(
	$chain->{checker}->points(10),
	sub {
		my ($point) = @_;
		is(join(' ', $chain->torn_chains), '', "$point, with a slow segment: no chain is torn");
	});
$chain->{checker}->stop;
cmp_ok($chain->{links}, '>', 100, "there were links ($chain->{links})");

done_testing();
