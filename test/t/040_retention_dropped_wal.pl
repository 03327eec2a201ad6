
# Kafka has deleted WAL that a remote segment had not read: while that server
# was away, and while it was at work but cut off.  It says so, applies nothing
# past the gap, and can be promoted or rebuilt as docs/operations.md says.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new(links => ['dr']);
my $c = Multisite->new('retention', segments => 1, brokers => $kafka->brokers);
my $pipe = "$c->{cluster}.main.wal.0";
my $error = qq{topic "$pipe" does not have what this server has to read next%};

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->start_remote(conf => "multisite.brokers = '" . $kafka->brokers('dr') . "'\n");
$c->wait_applied($c->create_point('one'));
my $digest = $c->digest($c->source(0), 't');

# More WAL, of which Kafka then keeps only the end.
sub lose
{
	for my $i (1 .. 5)
	{
		$c->sql($_, "INSERT INTO t SELECT generate_series(1, 1000 * $i)") foreach $c->ids;
	}
	$c->wait_for($c->source(0), q{SELECT state = 'waiting' AND published_lsn >= pg_current_wal_flush_lsn()
		FROM multisite_status WHERE worker = 'publisher'});
	my @wal = grep { $_->{kind} eq 'wal' } $kafka->messages($pipe);
	$kafka->delete_before($pipe, $wal[-1]{offset});
	is(($kafka->messages($pipe))[0]{offset}, $wal[-1]{offset}, 'Kafka has deleted the beginning of the pipe');
}

sub refused
{
	my ($what) = @_;
	$c->wait_for($c->remote(0), "SELECT state = 'failed' AND reason LIKE '$error' FROM multisite_status WHERE worker = 'receiver'");
	pass("$what: the receiver says what has happened");
	$c->wait_for($c->remote(-1), qq{SELECT state = 'failed' AND reason LIKE '$error'
		FROM multisite_segments WHERE site = 'dr' AND segment_id = 0});
	pass("$what: its coordinator knows, too");
	like(slurp_file($c->remote(0)->logfile), qr/does not have what this server has to read next.*?HINT:  [^\n]*retention[^\n]*base backup/s,
		"$what: the hint says what to do");
}

# As docs/operations.md says: "Rebuild a remote segment".
sub rebuild
{
	my ($k) = @_;
	my $old = $c->remote(0);

	$old->stop('fast');
	my $new = $c->init_remote(0, node_name => "retention_rebuilt_$k",
		conf => "multisite.brokers = '" . $kafka->brokers('dr') . "'\n");
	$new->start;
	$c->register(0, 'dr');
	$c->wait_applied($c->create_point("rebuilt_$k"));
	is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "rebuilt: segment $_ equals the source") foreach $c->ids;
}

# away
$c->remote(0)->stop;
lose();
$c->remote(0)->start;
refused('away');
$c->create_point('two');
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('two', 'released', '2 s')}), 'f', 'no point past the gap is released');
is($c->digest($c->remote(0), 't'), $digest, 'and nothing past it is applied');
rebuild(1);

# cut off, while its consumer stays as it is
$digest = $c->digest($c->source(0), 't');
my ($link) = $kafka->links('dr');
$link->set('stall');
lose();
$link->set('pass');
refused('cut off');
is($c->digest($c->remote(0), 't'), $digest, 'nothing past the gap is applied');
rebuild(2);

# a promotion needs nothing of the pipe
$c->remote(0)->stop;
$digest = $c->digest($c->source(0), 't');
lose();
$c->remote(0)->start;
refused('at the end');
$c->cut_source;
my ($name) = $c->promote;
is($name, 'rebuilt_2', 'the site can be promoted');
is($c->digest($c->remote(0), 't'), $digest, 'at its last point');

done_testing();
