
# A message of a backlog has as much WAL as fits into a batch of 1 MB when it is
# packed, and never more, whatever the WAL is: text that gets small, noise that
# does not, and both in turn.  Kafka's own limit is the judge of the size.

use strict;
use warnings;

use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;
use Pipe;

use constant MB => 1024 * 1024;

my $kafka = Kafka->new;
my $c = Multisite->new('filled', brokers => $kafka->brokers, conf => 'autovacuum = off');
my $pipe = "$c->{cluster}.main.wal.-1";

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int, b text, c bytea)');
$c->sql(-1, 'ALTER TABLE t ALTER b SET STORAGE PLAIN, ALTER c SET STORAGE PLAIN');
$c->start_remote;

my %write = (
	text => q{INSERT INTO t SELECT i, repeat('text', 100) FROM generate_series(1, 60000) i},
	noise => q{INSERT INTO t SELECT i, NULL, (SELECT string_agg(sha256((i * 100 + j)::text::bytea), '') FROM generate_series(1, 20) j)
		FROM generate_series(1, 30000) i});

# The lengths of the messages of a backlog, in MB of WAL.
sub backlog
{
	my ($compression, @what) = @_;
	my $source = $c->source(-1);
	my @before = $kafka->messages($pipe);
	my $end;

	$source->append_conf('postgresql.conf', "multisite.publish = off\nmultisite.compression = '$compression'\n");
	$source->reload;
	$c->wait_for($source, q{SELECT state = 'disabled' FROM multisite_status WHERE worker = 'publisher'});
	$c->sql(-1, $_) foreach 'TRUNCATE t', @write{@what};
	$end = $c->sql(-1, 'SELECT pg_current_wal_flush_lsn()');
	$source->append_conf('postgresql.conf', "multisite.publish = on\n");
	$source->reload;
	$c->wait_for($source, qq{SELECT published_lsn >= '$end' FROM multisite_status WHERE worker = 'publisher'});
	$c->wait_applied($c->create_point);
	is($c->digest($c->remote(-1), 't'), $c->digest($source, 't'), "$compression, @what: the remote equals the source");

	my @messages = $kafka->messages($pipe);
	my (undef, @problems) = Pipe::follow(@messages);
	is(join("\n", @problems), '', 'and the pipe has no hole');
	return map { $_->{length} / MB } grep { $_->{kind} eq 'wal' } @messages[ scalar(@before) .. $#messages ];
}

foreach my $compression ('lz4', 'zstd')
{
	my $most = max(backlog($compression, 'text'));

	cmp_ok($most, '>', 2, "a message has $most MB of text");
	cmp_ok($most, '<=', 4, 'and not more than receivers take');

	# what follows the text was gathered for messages of that size
	$most = max(backlog($compression, 'text', 'noise', 'text', 'noise'));
	cmp_ok($most, '>', 2, "among noise, $most MB");
	$most = max(backlog($compression, 'noise'));
	cmp_ok($most, '<', 2, "of noise, $most MB");
}
# the size that packed messages had is not kept
cmp_ok(max(backlog('lz4', 'text')), '>', 2, 'text again');
cmp_ok(max(backlog('none', 'text')), '<=', 7 / 8, 'and it is not kept without compression');
is($c->sql(-1, q{SELECT count(*) FROM multisite_status WHERE last_error IS NOT NULL}), '0', 'and nothing failed');

done_testing();
