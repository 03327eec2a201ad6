
# Two servers configured as the same segment: a copy on the same timeline is
# refused, until the operator says that it replaces the original; then the
# original stops.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('claims');
my $error = q{SELECT coalesce(last_error, '') FROM multisite_status WHERE worker = 'publisher'};

$c->start_source;
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->wait_applied($c->create_point('one'));

# a copy that is started as a primary, with the same configuration
my $copy = PostgreSQL::Test::Cluster->new('copy');
$c->source(-1)->backup('for_copy');
$copy->init_from_backup($c->source(-1), 'for_copy');
$copy->start;
$c->wait_for($copy, "SELECT ($error) LIKE '%is claimed by another server on the same timeline%'");
like($copy->safe_psql('postgres', $error), qr/It was claimed by .+:\Q@{[$c->source(-1)->data_dir]}\E on timeline 1/,
	'a copy is refused, and told by whom the pipe is claimed');

# the original restarts as it likes
$c->source(-1)->restart;
$c->wait_published(-1);
$c->sql(-1, 'INSERT INTO t VALUES (1)');
$c->wait_applied($c->create_point('two'));
pass('the original goes on');

# another cluster of the same name is refused by its system identifier
my $foreign = PostgreSQL::Test::Cluster->new('foreign');
$foreign->init(allows_streaming => 1);
$foreign->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'multisite_repl'
multisite.cluster_name = '$c->{cluster}'
multisite.brokers = '$c->{brokers}'
multisite.replication_factor = 1
multisite.publish = on});
$foreign->start;
$foreign->safe_psql('postgres', 'CREATE EXTENSION multisite_repl');
$c->wait_for($foreign, "SELECT ($error) LIKE '%belongs to another database system%'");
pass('another cluster of the same name is refused');
$foreign->stop;

# A server that is behind the pipe could not continue it.  How much WAL each of
# the two has written meanwhile is a matter of chance.
my $original_lsn = $c->sql(-1, 'SELECT pg_current_wal_insert_lsn()');
$copy->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS ahead (); SELECT pg_switch_wal()')
  until $copy->safe_psql('postgres', "SELECT pg_current_wal_insert_lsn() > '$original_lsn'") eq 't';

# the original is gone for good, says the operator; it is not quite
$copy->safe_psql('postgres', 'SELECT multisite_take_over_pipe()');
$c->wait_for($copy, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'});
pass('the copy takes the pipe over');
$c->sql(-1, 'INSERT INTO t VALUES (2)');
$c->wait_for($c->source(-1), "SELECT ($error) LIKE '%another%claimed%' OR ($error) LIKE '%is claimed by another server%'");
pass('the original stops');

done_testing();
