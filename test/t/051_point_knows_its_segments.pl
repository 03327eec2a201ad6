
# A point is only ever written on the cluster's own segments: each connection
# is checked before it is used, also if it was made by an attempt that failed
# because of another segment.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('knows', segments => 2);
my $stray = Multisite->new('stray');

$c->start_source;
$stray->start_source;
$c->create_point('one');

sub refused
{
	my ($what, $pattern) = @_;
	my ($status, $out, $err) = $c->source(-1)->psql('postgres', 'SELECT multisite_create_consistency_point()');

	isnt($status, 0, "$what: no point is made");
	like($err, $pattern, "$what: the error says why");
}

# segment 1's address leads to another cluster, while segment 0 is down
my $address = $stray->conninfo($stray->source(-1)) =~ s/'/''/gr;
$c->source(0)->stop;
$c->sql(-1, "SELECT multisite_add_segment(1, '$address', 'main')");
refused('segment 0 is down', qr/segment 0 could not be reached/);
$c->source(0)->start;
refused('segment 1 is another cluster', qr/segment 1 could not be used.*leads to/s);
refused('asked again', qr/segment 1 could not be used.*leads to/s);
unlike(slurp_file($stray->source(-1)->logfile), qr/restore point "multisite_\d+_\d+T\d+Z" created/, 'and nothing was written there');

# two that are new, of which one is down: both work when it is up
$c->source($_)->restart foreach 0, 1;
$c->source(0)->stop;
$c->register(1, 'main');
refused('segment 0 is down again', qr/segment 0 could not be reached/);
$c->source(0)->start;
like($c->create_point, qr/^multisite_/, 'the first point after that is made');

done_testing();
