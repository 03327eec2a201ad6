
# gp_create_restore_point() alone makes no consistent cut: with our barrier
# switched off the bank's checker must see a torn one.  If it could not, its
# silence elsewhere would mean nothing.

use strict;
use warnings;

use Test::More;

use Greenplum;
use GreenplumBank;

my $c = Greenplum->new('torn',
	conf => GreenplumBank->conf . "shared_preload_libraries = 'multisite_repl, $ENV{MULTISITE_SRC}/test/nobarrier/nobarrier'");

$c->start_source;
my $bank = GreenplumBank->new($c, clients => 8);
$c->start_remote;
$c->delay_restore_point(1, 0.05);
$bank->start;
my $looked = 0;
my @torn;
until (@torn || $looked == 300)
{
	my $point = $c->create_point;

	$c->wait_applied($point);
	$looked++;
	@torn = $bank->torn;
}
$c->stop_clients;
cmp_ok(scalar(@torn), '>', 0, "without the barrier a torn cut was seen, at point number $looked");
note(join("\n", @torn));
like(Greenplum::slurp($c->server('main', -1)->{log}), qr/the commit barrier is switched off/, 'it was without the barrier');

done_testing();
