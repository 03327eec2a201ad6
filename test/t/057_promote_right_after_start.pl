
# A site that has just been started answers no question about its points
# before it has read which ones there are: a promotion in that moment is
# carried out, and not refused.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('right_after', segments => 1);

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->start_remote;
$c->wait_applied($c->create_point('one'));
$c->source($_)->stop('immediate') foreach $c->ids;

$c->remote($_)->stop foreach $c->ids;
$c->remote($_)->start foreach $c->ids;
my ($out, $err) = ('', '');
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
my $asked = 0;
while (time < $until)
{
	$asked++;
	# the worker itself may not be there yet
	last if $c->remote(-1)->psql('postgres', 'SELECT multisite_promote()', stdout => \$out, stderr => \$err) == 0
		|| $err !~ /worker is not at work|no answer from/;
}
is($out, 'one', "it is promoted at its point, when asked ($asked times) from the first moment on");
unlike($err, qr/not yet consistent|does not exist/, 'and says nothing wrong about it');

done_testing();
