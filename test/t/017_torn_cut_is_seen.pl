
# With the barrier switched off the checkers must see a torn cut: if they
# could not, their silence elsewhere would mean nothing.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use CausalChain;
use Multisite;

my $c = Multisite->new('torn', segments => 3,
	conf => qq{shared_preload_libraries = 'multisite_repl, $ENV{MULTISITE_SRC}/test/nobarrier/nobarrier'\n});

$c->start_source;
my $chain = CausalChain->new($c, clients => 8);
$c->start_remote;
$chain->delay_restore_point(1, 0.05);
$chain->start;
my $looked = 0;
my @torn;
$chain->{checker}->each_point(
	300,
	sub {
		$looked++;
		@torn = $chain->torn_chains;
		return !@torn;
	});
$chain->{checker}->stop;
cmp_ok(scalar(@torn), '>', 0, "without the barrier a torn cut was seen, at point number $looked");
like(slurp_file($c->source(-1)->logfile), qr/the commit barrier is switched off/, 'it was without the barrier');

done_testing();
