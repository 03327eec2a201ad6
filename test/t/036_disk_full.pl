
# The disk is full: below the remote's pg_wal, so that nothing can be staged,
# and below the source's, while Kafka is away.  The state says so, nothing is
# damaged, and it goes on by itself when there is room again.  (A source whose
# pg_wal is full stops, as PostgreSQL does; then it has to be started.)

use strict;
use warnings;

use OwnMounts;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

plan skip_all => $OwnMounts::missing if $OwnMounts::missing;

my $kafka = Kafka->new;
my $c = Multisite->new('full', brokers => $kafka->brokers, init => ['--wal-segsize=1'], conf => q{
max_wal_size = 8MB
min_wal_size = 2MB
});

# Puts a stopped server's pg_wal on a file system of this size.
sub small_disk
{
	my ($node, $size) = @_;
	my $wal = $node->data_dir . '/pg_wal';

	rename($wal, my $was = $node->data_dir . "/../pg_wal.was") && mkdir($wal, 0700) or die $!;
	system_or_bail('mount', '-t', 'tmpfs', '-o', "size=$size,mode=700", 'none', $wal);
	system_or_bail('sh', '-c', "cp -a '$was/.' '$wal/'");
}

sub more_room { my ($node, $size) = @_; system_or_bail('mount', '-o', "remount,size=$size", $node->data_dir . '/pg_wal'); }

sub equal
{
	my ($what) = @_;

	$c->wait_applied($c->create_point);
	is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), "$what: the remote equals the source");
}

$c->init_source(-1);
small_disk($c->source(-1), '64M');
$c->source(-1)->start;
$c->sql(-1, 'CREATE EXTENSION multisite_repl; CREATE TABLE t (a int, b text)');
$c->wait_published(-1);
$c->init_remote(-1);
small_disk($c->remote(-1), '24M');
$c->remote(-1)->start;
$c->wait_applied($c->create_point);

# more WAL than the remote has room for, and no point in it
$c->sql(-1, 'INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 300000) i');
$c->wait_for($c->remote(-1), q{SELECT state = 'failed' AND reason LIKE 'could not %pg_wal/multisite/%No space left on device%'
	FROM multisite_status WHERE worker = 'receiver'});
pass('the remote says that its disk is full');
more_room($c->remote(-1), '200M');
equal('room at the remote');

# Kafka is away, and the source's disk runs full
$kafka->kill(0);
my ($status, $out, $err) = (0);
for (1 .. 20)
{
	($status, $out, $err) = $c->source(-1)->psql('postgres', 'INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 100000) i');
	last if $status != 0;
}
isnt($status, 0, 'the source has stopped writing');
like(slurp_file($c->source(-1)->logfile), qr/No space left on device/, 'since its disk is full');
more_room($c->source(-1), '300M');
$c->source(-1)->stop('immediate', fail_ok => 1);
$c->cut($c->source(-1)) if -e $c->source(-1)->data_dir . '/postmaster.pid' && defined $c->source(-1)->{_pid};
$c->source(-1)->{_pid} = undef;
$c->source(-1)->start;
$kafka->start(0);
$c->wait_published(-1);
equal('room at the source');
like($c->sql(-1, 'SELECT count(*) FROM t'), qr/^\d{6,}$/, 'with what was committed before');
is($c->remote_sql(-1, q{SELECT count(*) FROM multisite_status WHERE worker = 'receiver' AND last_error ~ 'invalid|missing'}), '0', 'and nothing was damaged');

# so that the directories can be removed
$c->remote(-1)->stop;
$c->source(-1)->stop;
system_or_bail('umount', $_->data_dir . '/pg_wal') foreach $c->source(-1), $c->remote(-1);

done_testing();
