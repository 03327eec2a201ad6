
# Bytes past the last released point are never in a remote's pg_wal.  This
# looks at the files themselves.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

use constant SEGMENT => 16 * 1024 * 1024;

my $c = Multisite->new('bytes');
my $released_lsn = q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'};

sub lsn_number
{
	my ($hi, $lo) = split m{/}, $_[0];
	return (hex($hi) << 32) + hex($lo);
}

# How many bytes that are not zero a remote's pg_wal has past an LSN, in files
# that hold WAL of that place: a recycled file has older page addresses.
sub bytes_past
{
	my ($node, $lsn) = @_;
	my $found = 0;

	foreach my $file (grep { /^[0-9A-F]{24}$/ } slurp_dir($node->data_dir . '/pg_wal'))
	{
		my $segno = hex(substr($file, 8, 8)) * 256 + hex(substr($file, 16, 8));
		my $begin = $segno * SEGMENT;

		next if $begin + SEGMENT <= $lsn;
		my $bytes = slurp_file($node->data_dir . "/pg_wal/$file");
		is(length($bytes), SEGMENT, "$file has the size of a segment");
		for (my $at = 0; $at < SEGMENT; $at += 8192)
		{
			my $page = substr($bytes, $at, 8192);
			my $address = unpack('x8 Q<', $page);
			my $from = $begin + $at < $lsn ? $lsn - $begin - $at : 0;

			next if $from >= 8192;
			next if $from == 0 && $address != $begin + $at;
			$found += () = substr($page, $from) =~ /[^\0]/g;
		}
	}
	return $found;
}

$c->start_source;
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t (a int, b text)');

foreach my $round (1 .. 4)
{
	# from a few bytes to several segments
	my $rows = (10, 1000, 100_000, 300_000)[ $round - 1 ];
	$c->sql(-1, "INSERT INTO t SELECT i, 'round $round' FROM generate_series(1, $rows) i");

	# WAL that no point covers is staged before the point is released, so that
	# a release that took too much would find something to take
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	my $point = $c->create_point("round_$round");
	$c->sql(-1, 'INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 50000) i');
	my $end = $c->sql(-1, 'SELECT pg_current_wal_flush_lsn()');
	my $lsn = $c->sql(-1, "SELECT lsn FROM multisite_consistency_points WHERE name = '$point'");
	$c->wait_for($c->remote(-1), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
	cmp_ok($c->remote_sql(-1, "SELECT pg_wal_lsn_diff(staged_lsn, '$lsn') FROM multisite_status
		WHERE worker = 'receiver'"), '>', 1024 * 1024, "round $round: WAL past the point is staged");
	my $before = $c->remote_sql(-1, $released_lsn);
	is(bytes_past($c->remote(-1), lsn_number($before)), 0, "round $round: none of it is in pg_wal");

	$c->remote_sql(-1, 'SELECT multisite_resume()');
	$c->wait_applied($point);
	is($c->remote_sql(-1, $released_lsn), $lsn, "round $round: released up to the point");
	is(bytes_past($c->remote(-1), lsn_number($lsn)), 0, "round $round: nothing past it in pg_wal");
}

# the check itself can fail: the source's own files have bytes past that place
cmp_ok(bytes_past($c->source(-1), lsn_number($c->remote_sql(-1, $released_lsn))), '>', 0, 'the source has bytes past it');

done_testing();
