
# Kafka is lost together with the source: the remote site is promoted at the
# newest point that all of its segments have staged.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;
use Session;

sub scenario
{
	my ($name, $restart) = @_;
	my $kafka = Kafka->new;
	my $c = Multisite->new($name, segments => 2, brokers => $kafka->brokers, conf => 'autovacuum = off');
	my ($out, $err);

	$c->start_source;
	$c->sql($_, 'CREATE TABLE t (a text)') foreach $c->ids;
	$c->start_remote;
	$c->wait_applied($c->create_point('applied'));

	# staged by all, but not released
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	$c->sql($_, q{INSERT INTO t VALUES ('staged')}) foreach $c->ids;
	$c->wait_applied($c->create_point('staged by all'), 'staged');

	# one segment misses the last one
	$c->remote(1)->stop;
	$c->sql($_, q{INSERT INTO t VALUES ('lost')}) foreach $c->ids;
	$c->create_point('missing on 1');
	$c->wait_for($c->remote(0), q{SELECT staged_at IS NOT NULL FROM multisite_consistency_points WHERE name = 'missing on 1'});

	$c->cut_source;
	$kafka->stop;
	if ($restart)
	{
		$c->cut($c->remote($_)) foreach -1, 0;
		$c->remote($_)->start foreach -1, 0;
	}

	# a segment that cannot be reached
	isnt($c->remote(-1)->psql('postgres', 'SELECT multisite_promote(offline => true)', stderr => \$err), 0,
		"$name: a segment is down");
	like($err, qr/segment 1 of site "dr" could not be reached/, "$name: it is named");
	is($c->remote_sql(0, 'SELECT pg_is_in_recovery()'), 't', "$name: and nothing happens");
	$c->remote(1)->start;
	isnt($c->remote(-1)->psql('postgres', q{SELECT multisite_promote('missing on 1', offline => true)}, stderr => \$err), 0,
		"$name: a point that is not staged everywhere");
	like($err, qr/"missing on 1" is not staged on all segments.*Segment 1 does not have it/s, "$name: is refused by the segment's name");

	# interrupted half way: once one of the segments has begun, before the coordinator
	my $asker = Session->new($c->remote(-1));
	my $blocker = Session->new($c->remote(0));
	$asker->begin('SELECT multisite_promote(offline => true)');
	$c->wait_for($c->remote(0), 'SELECT NOT pg_is_in_recovery()');
	$c->remote(-1)->psql('postgres', 'SELECT pg_terminate_backend(' . $asker->pid . ')');
	$asker->end;

	is($c->remote(-1)->psql('postgres', 'SELECT multisite_promote(offline => true)', stdout => \$out, stderr => \$err), 0,
		"$name: promoted") or diag($err);
	is($out, 'staged by all', "$name: at the newest point that all have");
	is($c->remote_sql($_, q{SELECT string_agg(a, ' ') FROM t}), 'staged', "$name: segment $_ is at it") foreach $c->ids;
	$c->remote_sql($_, q{INSERT INTO t VALUES ('written')}) foreach $c->ids;
	is($c->remote_sql(-1, 'SELECT multisite_promote(offline => true)'), 'staged by all', "$name: it can be called again");

	# and nobody undoes it after a restart
	$c->remote($_)->restart foreach $c->ids;
	is($c->remote_sql($_, q{SELECT count(*) FROM t}), '2', "$name: segment $_ after a restart") foreach $c->ids;
	is($c->remote_sql(0, q{SELECT state FROM multisite_status WHERE worker = 'receiver'}), 'promoted', "$name: its receiver has ended");
	$_->stop foreach map { $c->remote($_) } $c->ids;
}

scenario('running', 0);
scenario('restarted', 1);

# Kafka is there, but the decision was made without it, and its session is gone
my $c = Multisite->new('beside', segments => 1, conf => 'autovacuum = off');
my $err;
$c->start_source;
$c->sql($_, 'CREATE TABLE t (a text)') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point('first'));
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->wait_applied($c->create_point('second'), 'staged');
$c->sql($_, q{INSERT INTO t VALUES ('third')}) foreach $c->ids;
$c->wait_applied($c->create_point('third'), 'staged');
$c->remote_sql(-1, q{SELECT multisite.promote_segment('second', false)});
isnt($c->remote(-1)->psql('postgres', 'SELECT multisite_promote()', stderr => \$err), 0, 'a promotion through Kafka');
like($err, qr/a promotion without Kafka is under way/, 'is refused beside one without');
isnt($c->remote(-1)->psql('postgres', q{SELECT multisite_promote('third', offline => true)}, stderr => \$err), 0, 'one to another point');
like($err, qr/a promotion to consistency point "second" is under way.*Segment -1 has begun it/s, 'is refused, too');
is($c->remote_sql(-1, 'SELECT multisite_promote(offline => true)'), 'second', 'and the one that has begun goes on');
is($c->remote_sql($_, 'SELECT count(*) FROM t'), '0', "segment $_ is at it") foreach $c->ids;

done_testing();
