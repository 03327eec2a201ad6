
# What the views and messages say of a site that begins, is paused, fails, and is
# promoted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('words', segments => 1);

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->create_point($_) foreach 'early', 'earlier than that';
is($c->sql(-1, q{SELECT count(*) FROM multisite.point_name n JOIN multisite_consistency_points p USING (name)
	WHERE abs(extract(epoch FROM n.reserved_at - p.created_at)) < 5}), '2', 'a name is given when it is asked for');
is($c->sql(-1, q{SELECT count(DISTINCT reserved_at) FROM multisite.point_name}), '2', 'each at its own time');

# a segment that has staged nothing, and cannot begin
$c->init_remote(-1)->start;
$c->init_remote(0, conf => q{primary_conninfo = 'host=/nowhere'})->start;
$c->register(0, 'dr');
$c->wait_for($c->source(-1), q{SELECT reason ~ 'waits for segment 0, which has staged nothing: "primary_conninfo" is set'
	FROM multisite_estimates WHERE site = 'dr'});
pass('a segment that has staged nothing');

# for a moment after the repair nobody is sure
$c->remote(0)->append_conf('postgresql.conf', q{primary_conninfo = ''});
$c->remote(0)->reload;
$c->wait_for($c->remote(-1), q{SELECT reason LIKE 'had failed: "primary_conninfo" is set%' FROM multisite_segments
	WHERE site = 'dr' AND segment_id = 0});
pass('the failure that is over is told as such');
$c->wait_applied($c->create_point('one'));

is($c->remote_sql(-1, q{SELECT string_agg(DISTINCT state || ': ' || reason, '') FROM multisite_status WHERE worker IN ('publisher', 'points')}),
	'stopped: this server is a standby; it begins after a promotion', 'what a standby does not do yet');
is($c->remote_sql(0, q{SELECT reason FROM multisite_status WHERE worker = 'points'}), 'points are made on the coordinator',
	'and what it will never do');

# paused
my $reason = q{SELECT reason FROM multisite_estimates WHERE site = 'dr'};
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->create_point('two');
foreach my $node ($c->remote(-1), $c->source(-1))
{
	$c->wait_for($node, "SELECT ($reason) LIKE 'point \"two\" is staged on all segments, but the site is paused: %until multisite_resume()'");
	pass($node->name . ' says that the site is paused');
}
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($_, "SELECT ($reason) = 'the newest point is applied'") foreach $c->remote(-1), $c->source(-1);
pass('and that it no longer is');

# a segment that is not there
$c->sql(-1, q{SELECT multisite_add_segment(0, 'host=/nowhere')});
my ($status, $out, $err) = $c->source(-1)->psql('postgres', 'SELECT multisite_create_consistency_point()');
like($err, qr/segment 0 could not be reached.*DETAIL:.*\?$/ms, 'a question ends with its mark');
$c->register(0, 'main');

# promoted
$c->cut_source;
my ($name, $notices) = $c->promote;
like($notices, qr/NOTICE:  segment $_ accepts writes/, "segment $_ accepts writes") foreach $c->ids;
$c->wait_for($c->remote(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
is($c->remote_sql(-1, 'SELECT count(*) FROM multisite_estimates'), '0', 'a promoted site is no remote of itself');
is($c->remote_sql($_, q{SELECT state, lag_bytes, lag_seconds FROM multisite_status WHERE worker = 'receiver'}), 'promoted||',
	"segment $_ lags behind nobody any more") foreach $c->ids;

done_testing();
