
# The library is loaded through shared_preload_libraries or not at all: without it
# the extension cannot be created, nor any of its functions called.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;					# for where its ports begin

my $node = PostgreSQL::Test::Cluster->new('bare');

sub is_refused
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");

	like($err, qr/ERROR:  55000: multisite_repl must be loaded through shared_preload_libraries\n/, "refused: $statement");
	like($err, qr/HINT:  Add multisite_repl to shared_preload_libraries/, 'and the hint says what to do');
}

$node->init;
$node->start;
is_refused('CREATE EXTENSION multisite_repl');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_extension WHERE extname = 'multisite_repl'}), '0',
	'and nothing is left of it');
is_refused(q{LOAD 'multisite_repl'});

# loaded, but not configured: the workers say which setting they lack
$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'multisite_repl'});
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION multisite_repl');
$node->poll_query_until('postgres', q{SELECT state = 'disabled' FROM multisite_status WHERE worker = 'publisher'});
is($node->safe_psql('postgres', q{SELECT reason FROM multisite_status WHERE worker = 'publisher'}),
	'multisite.cluster_name is not set', 'a worker says which setting it lacks');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT multisite_create_consistency_point()');
like($err, qr/multisite.cluster_name is not set/, 'and so does a point that cannot be made');

# the extension is there, the library no longer
$node->append_conf('postgresql.conf', q{shared_preload_libraries = ''});
$node->restart;
is_refused("SELECT $_")
  foreach (
	'multisite_create_consistency_point()', q{multisite_create_consistency_point('x')},
	q{multisite_wait_for_consistency_point('x')}, 'multisite_promote()', 'multisite_pause()',
	'multisite_resume()', q{multisite_add_segment(0, 'host=a')}, 'multisite_remove_segment(0)',
	'multisite_take_over_pipe()', 'multisite.commits()', 'multisite.barrier_raise(1)',
	'multisite.barrier_lower()', q{multisite.write_restore_point('x')}, 'multisite.identity()',
	'multisite.workers()', 'multisite.points()', 'multisite.segment_states()', 'multisite.flush_wal()',
	'* FROM multisite_status');
$node->safe_psql('postgres', 'DROP EXTENSION multisite_repl');
pass('it can still be dropped');

done_testing();
