
# The cluster gets a segment, and the site a brother, while all goes on: the new
# segment comes in with the first point that contains it, and a second remote
# site follows the same pipes at its own pace, though it was started before its
# segments were there.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('grows', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t AS SELECT generate_series(1, 100) AS a') foreach $c->ids;
$c->wait_applied($c->create_point('small'));

# a new segment at the source; the remote site does not have it yet
$c->{segments} = 2;
$c->init_source(1)->start;
$c->sql(1, 'CREATE EXTENSION multisite_repl; CREATE TABLE t AS SELECT generate_series(1, 100) AS a');
$c->register(1, 'main');
$c->wait_published(1);
is($c->create_point('with it'), 'with it', 'a point is made on three servers');
is($c->sql(-1, q{SELECT segments FROM multisite_consistency_points WHERE name = 'with it'}), '3', 'as the point says');
$c->wait_for($c->remote(-1), q{SELECT reason ~ '"with it" waits for segment 1' FROM multisite_status WHERE worker = 'orchestrator'});
is($c->remote_sql(-1, q{SELECT state FROM multisite_consistency_points WHERE name = 'small'}), 'applied',
	'the remote site waits for the new segment, at the point before');

# it is built at the remote site
$c->init_remote(1)->start;
$c->register(1, 'dr');
$c->sql($_, 'INSERT INTO t VALUES (0)') foreach $c->ids;
$c->wait_applied($c->create_point('all'));
is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "segment $_ equals the source") foreach $c->ids;

# a second remote site, whose coordinator is there first
my %other;
foreach my $id ($c->ids)
{
	$other{$id} = $c->init_remote($id, site => 'other', node_name => "grows_other_$id");
	$other{$id}->start;
	$c->sql($_, "INSERT INTO t VALUES (1)") foreach $c->ids;
	$c->create_point("meanwhile $id");
}
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
$c->remote_sql(-1, 'SELECT multisite_pause()');
my $last = $c->create_point('last');
is($other{-1}->safe_psql('postgres', "SELECT multisite_wait_for_consistency_point('last', 'applied', '80 s')"), 't',
	'the second site applies the point');
is($c->remote_sql(-1, q{SELECT state <> 'applied' FROM multisite_consistency_points WHERE name = 'last'}), 't',
	'which the first, paused, has not');
is($c->digest($other{$_}, 't'), $c->digest($c->source($_), 't'), "segment $_ of the second site equals the source") foreach $c->ids;
$c->wait_for($c->source(-1), q{SELECT count(DISTINCT site) = 2 FROM multisite_estimates});
pass('the source tells how far either of them is');

# either is promoted by itself
my %digest = map { $_ => $c->digest($c->source($_), 't') } $c->ids;
$c->wait_applied($last, 'staged');
$c->cut_source;
my ($name) = $c->promote;
is($name, 'last', 'the first site is promoted, out of its pause');
is($c->digest($c->remote($_), 't'), $digest{$_}, "its segment $_ is at the point") foreach $c->ids;
is($other{-1}->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', 'the second goes on following');

done_testing();
