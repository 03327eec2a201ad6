
# Servers that are promoted by hand while no receiver follows: after a restart
# with Kafka away, while a session asks what is staged, and in the middle of a
# release.  Each notes at which point it was promoted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

plan skip_all => 'root can write to any file' if $> == 0;

my $kafka = Kafka->new;
my $c = Multisite->new('unseen', segments => 2, brokers => $kafka->brokers, conf => 'autovacuum = off');

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
# as commit and rollback have gone half of the way: in doubt, with an answer
$c->sql($_, qq{BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'gid'}) foreach -1, 0;
$c->sql(0, q{COMMIT PREPARED 'gid'});
$c->wait_applied($c->create_point('one'));
my $released = $c->remote_sql(1, q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
$c->wait_applied($c->create_point('two'), 'staged');

# segment 1 cannot carry out the release of a point that the others release
my $file = $c->remote(1)->data_dir . '/pg_wal/' . $c->sql(1, "SELECT pg_walfile_name('$released')");
chmod(0400, $file);
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($c->remote(1), q{SELECT last_error LIKE 'could not open file%Permission denied' FROM multisite_status WHERE worker = 'receiver'});
$c->wait_for($c->remote($_), q{SELECT count(*) = 1 FROM t WHERE a = 2}) foreach -1, 0;

# staged, and never released
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql($_, 'INSERT INTO t VALUES (3)') foreach $c->ids;
$c->create_point('three');
$c->wait_for($c->remote(0), q{SELECT state = 'staged' FROM multisite_consistency_points WHERE name = 'three'});
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM multisite_consistency_points WHERE name = 'three'});

$c->cut_source;
$kafka->stop;
$c->remote($_)->stop foreach 0, 1;
$c->remote($_)->start foreach 0, 1;
$c->wait_for($c->remote($_), q{SELECT state IN ('connecting', 'failed') FROM multisite_status WHERE worker = 'receiver'}) foreach 0, 1;
$c->remote_sql(-1, 'SELECT multisite.staged_points()');
$c->remote($_)->promote foreach $c->ids;

foreach my $id ($c->ids)
{
	my $point = $id == 1 ? 'one' : 'two';

	$c->wait_for($c->remote($id), "SELECT reason = 'this segment was promoted at consistency point \"$point\"'
		FROM multisite_status WHERE worker = 'receiver'");
	pass("segment $id knows at which point it was promoted");
	is($c->remote_sql($id, 'SELECT max(a) FROM t'), $id == 1 ? '' : '2', "and is at it");
	unlike(slurp_file($c->remote($id)->logfile), qr/terminated by signal/, 'nothing has crashed');
	is($c->remote_sql($id, qq{SELECT gid, outcome FROM multisite.prepared_outcomes('$point', ARRAY['gid'])}), $id == 0 ? 'gid|committed' : '',
		'it knows how transactions ended before it');
	is($c->remote_sql($id, qq{SELECT string_agg(DISTINCT state, ' ') FROM multisite_consistency_points 
		WHERE id > (SELECT id FROM multisite_consistency_points WHERE name = '$point')}),
		'passed', 'the later points are passed');
	my @staged = grep { /^[0-9A-F]{24}$/ } slurp_dir($c->remote($id)->data_dir . '/pg_wal/multisite');
	is("@staged", '', 'nothing staged is left');
}
$c->remote(0)->restart;
$c->wait_for($c->remote(0), q{SELECT state = 'promoted' FROM multisite_status WHERE worker = 'receiver'});
pass('also after a restart');

done_testing();
