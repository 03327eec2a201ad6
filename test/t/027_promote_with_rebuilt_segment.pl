
# A segment was built anew, has passed the released point, and the source is
# lost before the next one: the promotion is refused, instead of promoting
# half of the site.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('half', segments => 2);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t AS SELECT 1 AS a') foreach $c->ids;
$c->wait_applied($c->create_point('first'));
$c->cut($c->remote(1));
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
$c->init_remote(1, node_name => 'half_rebuilt')->start;
$c->wait_for($c->remote(-1), q{SELECT passed_point = 'first' FROM multisite_segments WHERE site = 'dr' AND segment_id = 1});
$c->cut_source;
foreach my $point ('', q{'first'})
{
	my ($status, $out, $err) = $c->remote(-1)->psql('postgres', "SELECT multisite_promote($point)");
	like($err, qr/"first" cannot be used at this site.*DETAIL:  It lies before the base backup of segment 1/s,
		"refused: multisite_promote($point)");
}
is($c->remote_sql($_, 'SELECT pg_is_in_recovery()'), 't', "segment $_ is not promoted") foreach $c->ids;

done_testing();
