
# A point that lies before a segment's base backup is passed at the site, and
# nobody calls it applied: neither the coordinator, whose own backup is older, nor
# the source.  What was applied stays applied when a segment is built anew.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('passed', segments => 1);

# Waits until both coordinators show these states; "!" stands for a time of applied.
sub shown
{
	my ($expected, $what) = @_;
	my $query = q{SELECT string_agg(name || ' ' || state || CASE WHEN applied_at IS NULL THEN '' ELSE '!' END, ', ' ORDER BY id)
		FROM multisite_consistency_points};

	foreach my $node ($c->source(-1), $c->remote(-1))
	{
		$node->poll_query_until('postgres', $query, $expected) or diag('timed out');
		is($node->safe_psql('postgres', $query), $expected, $node->name . ": $what");
	}
}

# Waiting for a point ends with an error, and its DETAIL.
sub not_awaited
{
	my ($node, $point, $why) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT multisite_wait_for_consistency_point('$point', 'applied', '5 s')");

	like($err, qr/"$point" is passed.*DETAIL:  $why/s, $node->name . ": why \"$point\" is not waited for");
}

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->create_point('before');
$c->init_remote(-1)->start;
$c->create_point('between');
$c->init_remote(0)->start;
$c->register(0, 'dr');
$c->wait_applied($c->create_point('first'));
shown('before passed, between passed, first applied!', 'what lies before a base backup is passed');
not_awaited($c->remote(-1), 'between', 'It lies before the end of the base backup of a segment of the remote site');
not_awaited($c->source(-1), 'between', 'It lies before the end of the base backup of a segment of the remote site');
not_awaited($c->remote(-1), 'before', q{It lies before the end of this server's base backup});
is($c->sql(-1, q{SELECT multisite_wait_for_consistency_point('between', 'published')}), 't', 'it is published all the same');

$c->remote(-1)->restart;
$c->source(-1)->restart;
$c->wait_published(-1);
$c->wait_applied($c->create_point('second'));
shown('before passed, between passed, first applied!, second applied!', 'so after a restart');

# a segment is lost, and built anew behind a point that all others have
$c->cut($c->remote(0));
$c->create_point('without');
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('without', 'released', '1 s')}), 'f', 'a segment is lost');
$c->init_remote(0, node_name => 'rebuilt')->start;
$c->register(0, 'dr');
$c->wait_applied($c->create_point('again'));
shown('before passed, between passed, first applied!, second applied!, without passed, again applied!',
	'what was applied stays so, and what the segment has missed is passed');

# behind the point of a promotion
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->create_point('later');
$c->wait_applied('later', 'staged');
$c->cut_source;
my ($name) = $c->promote('again');
is($name, 'again', 'promoted before what was staged last');
not_awaited($c->remote(-1), 'later', 'It comes after the point at which this site was promoted');
$c->wait_for($c->remote(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
is($c->remote_sql(-1, q{SELECT multisite_create_consistency_point('own')}), 'own', 'it makes points of its own');
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_wait_for_consistency_point('own', 'published')});
is($out, 't', 'which are not passed');

done_testing();
