
# A remote segment that could get WAL from elsewhere is refused, with what to
# remove; pg_basebackup -R leaves primary_conninfo behind.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('refuse');

$c->start_source;
my $standby = $c->init_remote(-1, conf => q{primary_conninfo = 'host=/nowhere password=geheim'});
$standby->start;

my $state = q{SELECT state FROM multisite_status WHERE worker = 'receiver'};
my $error = q{SELECT last_error FROM multisite_status WHERE worker = 'receiver'};

$c->wait_for($standby, "SELECT ($state) = 'failed'");
like($c->remote_sql(-1, $error), qr/"primary_conninfo" is set/, 'primary_conninfo is refused');
my $hint = qr/Remove primary_conninfo from postgresql.conf.*, and reload\./;
like(slurp_file($standby->logfile), qr/HINT:  $hint/, 'the log says what to remove');
like($c->remote_sql(-1, "SELECT $_ FROM multisite_status WHERE worker = 'receiver'"),
	qr/^"primary_conninfo" is set .* \(It would stream .*\. Hint: $hint\)$/, "and so does $_")
  foreach 'reason', 'last_error';
# which the next attempt tells the other site
$c->wait_for($c->source(-1), q{SELECT count(*) = 1 FROM multisite_segments WHERE site = 'dr' AND state = 'failed'});
like($c->sql(-1, q{SELECT reason FROM multisite_segments WHERE site = 'dr'}),
	qr/^"primary_conninfo" is set .* Hint: $hint\)$/, 'and the source coordinator');
unlike(slurp_file($standby->logfile), qr/geheim/, 'the log does not repeat its value');

$standby->append_conf('postgresql.conf', q{primary_conninfo = ''});
$standby->reload;
$c->wait_for($standby, "SELECT ($state) = 'waiting'");
$c->sql(-1, 'CREATE TABLE t ()');
$c->wait_applied($c->create_point);
pass('without it the server follows');
# a moment later it is believed
$c->wait_for($standby, q{SELECT failing_since IS NULL FROM multisite_status WHERE worker = 'receiver'});
like(slurp_file($standby->logfile), qr/multisite receiver works again/, 'the end of the trouble is logged');

my @complaints = slurp_file($standby->logfile) =~ /multisite receiver failed: "primary_conninfo"/g;
is(scalar(@complaints), 1, 'the error was logged once');

# set again in flight: the next point is not released
$standby->append_conf('postgresql.conf', q{primary_conninfo = 'host=/nowhere'});
$standby->reload;
$c->wait_for($standby, "SELECT ($state) = 'failed'");
my $point = $c->create_point('held');
is($c->remote_sql(-1, "SELECT multisite_wait_for_consistency_point('held', 'applied', '2 s')"),
	'f', 'nothing is released while it is set');

# a change that needs a restart before PostgreSQL 14
$standby->append_conf('postgresql.conf', q{
primary_conninfo = ''
restore_command = 'cp /nowhere/%f %p'});
$standby->restart;
$c->wait_for($standby, "SELECT ($error) LIKE '%\"restore_command\" is set%'");
pass('restore_command is refused, too');
$standby->append_conf('postgresql.conf', q{restore_command = ''});
$standby->restart;
$c->wait_applied('held');
pass('without both, what was held back is released');

# a promotion that was asked for while nothing could be done is refused, with the
# reason, and does not happen later, when it can
$standby->append_conf('postgresql.conf', q{primary_conninfo = 'host=/nowhere'});
$standby->restart;
$c->wait_for($standby, "SELECT ($state) = 'failed'");
my ($status, $out, $err) = $standby->psql('postgres', q{SET statement_timeout = '30s'; SELECT multisite_promote()});
like($err, qr/cannot decide anything yet.*"primary_conninfo" is set/s, 'a promotion is refused with what keeps the receiver from its work');
$standby->append_conf('postgresql.conf', q{primary_conninfo = ''});
$standby->reload;
$standby->restart if $c->sql(-1, 'SHOW server_version_num') < 140000;
$c->wait_for($standby, "SELECT ($state) = 'waiting'");
$c->wait_applied($c->create_point('later'));
is($c->remote_sql(-1, 'SELECT pg_is_in_recovery()'), 't', 'and is not made up for when the server follows again');

done_testing();
