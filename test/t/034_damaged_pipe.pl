
# What must not be in a pipe: repetitions are passed over; a message that is
# damaged, cut off, not ours, or beyond a gap stops its receiver by name, and
# nothing of it is taken; the site can be promoted at its last point.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('damage', segments => 2, brokers => $kafka->brokers);
my %pipe = map { $_ => "$c->{cluster}.main.wal.$_" } $c->ids;

$c->start_source;
$c->sql($_, 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS a') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point);

# repetitions, of what is released and of what is only staged, in disorder
$c->remote_sql(-1, 'SELECT multisite_pause()');
foreach my $id ($c->ids)
{
	$c->sql($id, 'INSERT INTO t VALUES (1)');
	$c->sql($id, 'INSERT INTO t VALUES (2)');
	$c->wait_published($id);
	my @wal = grep { $_->{kind} eq 'wal' } $kafka->messages($pipe{$id});
	cmp_ok(scalar @wal, '>=', 3, "segment $id: its pipe has messages");
	$kafka->copy($pipe{$id}, $wal[$_]{offset}, 'same') foreach -1, 0, -2;
	$c->sql($id, 'INSERT INTO t VALUES (3)');
}
$c->remote_sql(-1, 'SELECT multisite_resume()');
my $point = $c->create_point;
$c->wait_applied($point);
my %digest = map { $_ => $c->digest($c->source($_), 't') } $c->ids;
is($c->digest($c->remote($_), 't'), $digest{$_}, "segment $_: messages that came again change nothing") foreach $c->ids;

# one kind of damage for each pipe, with good WAL behind it; the length in a
# header is that of the WAL, so if it is packed, only the checksum tells
my %damage = (
	-1 => [ 'flip', '^invalid message in Kafka topic.*its checksum is wrong' ],
	0 => [ 'cut', '^invalid message in Kafka topic.*its (length is not the one in its header|checksum is wrong)' ],
	1 => [ '1000000', '^WAL is missing in topic' ]);
foreach my $id ($c->ids)
{
	my ($last) = grep { $_->{kind} eq 'wal' } reverse $kafka->messages($pipe{$id});

	$kafka->copy($pipe{$id}, $last->{offset}, $damage{$id}[0]);
	$c->sql($id, 'INSERT INTO t VALUES (4)');
}
foreach my $id ($c->ids)
{
	$c->wait_for($c->remote($id), "SELECT state = 'failed' AND reason ~ '$damage{$id}[1]'
		FROM multisite_status WHERE worker = 'receiver'");
	pass("segment $id ($damage{$id}[0]): its receiver stops, and says why");
}
$c->create_point('behind');
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('behind', 'released', '3 s')}), 'f',
	'no point behind the damage is released');
$c->cut_source;
my ($name) = $c->promote;
is($name, $point, 'the site is promoted at its last point');
is($c->digest($c->remote($_), 't'), $digest{$_}, "segment $_ is at that point") foreach $c->ids;

done_testing();
