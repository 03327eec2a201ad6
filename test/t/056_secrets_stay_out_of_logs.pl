
# Settings that may hold a password are not logged when they change, in no
# language, and a value that is refused is not, either.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

# gettext takes it for any locale but C, so that no other locale is needed
$ENV{LANGUAGE} = 'de';
my $c = Multisite->new('secrets', conf => "lc_messages = 'C.UTF-8'\nlog_statement = 'none'\n");
my $node = $c->init_source(-1);

$node->start;
$c->sql(-1, 'CREATE EXTENSION multisite_repl');
my @settings = (
	'kafka_options', 'sasl.password=geheim1',
	'local_conninfo', 'host=/nowhere password=geheim2',
	'kafka_options', 'no.such.option=geheim3',
	'kafka_options', 'sasl.password=x;geheim4',
	'kafka_options', 'sasl.password=x;geheim5=y',
	'local_conninfo', 'host=/nowhere password=x geheim6',
	'local_conninfo', 'host=/nowhere password=x geheim7=y');
for (my $i = 0; $i < @settings; $i += 2)
{
	$node->append_conf('postgresql.conf', "multisite.$settings[$i] = '$settings[$i + 1]'\ntemp_file_limit = 100$i");
	$node->reload;
	# who sees this connects after the postmaster has logged it
	$c->wait_for($node, "SELECT setting = '100$i' FROM pg_settings WHERE name = 'temp_file_limit'");
}
my $log = slurp_file($node->logfile);
like($log, qr/multisite\.kafka_options/, 'the log says that it was changed');
unlike($log, qr/geheim\d/, 'but not to what');
note($log =~ /Parameter/ ? 'in German' : 'without a translation');

done_testing();
