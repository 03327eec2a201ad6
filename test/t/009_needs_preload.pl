
# Without shared_preload_libraries every function says what is missing.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('bare');

$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION multisite_repl');
foreach my $call (
	'multisite_create_consistency_point()', q{multisite_create_consistency_point('x')},
	q{multisite_wait_for_consistency_point('x')}, 'multisite_promote()', 'multisite_pause()',
	'multisite_resume()', q{multisite_add_segment(0, 'host=a')}, 'multisite_remove_segment(0)',
	'multisite_take_over_pipe()', 'multisite.commits()', 'multisite.barrier_raise(1)',
	'multisite.barrier_lower()', q{multisite.write_restore_point('x')}, 'multisite.identity()',
	'multisite.workers()', 'multisite.points()', 'multisite.segment_states()')
{
	my ($status, $out, $err) = $node->psql('postgres', "SELECT $call");
	like($err, qr/multisite_repl is not loaded.*HINT:  Add multisite_repl to shared_preload_libraries/s, $call);
}

# loaded, but not configured: the workers say which setting they lack
$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'multisite_repl'});
$node->restart;
$node->poll_query_until('postgres', q{SELECT state = 'disabled' FROM multisite_status WHERE worker = 'publisher'});
is($node->safe_psql('postgres', q{SELECT reason FROM multisite_status WHERE worker = 'publisher'}),
	'multisite.cluster_name is not set', 'a worker says which setting it lacks');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT multisite_create_consistency_point()');
like($err, qr/multisite.cluster_name is not set/, 'and so does a point that cannot be made');

done_testing();
