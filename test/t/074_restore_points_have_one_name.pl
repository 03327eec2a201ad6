
# A restore point's name is given once, as recovery_target_name would take the
# first of two: also where points fail behind it, several within a second.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Multisite;
use Session;

my $c = Multisite->new('onename', segments => 1);
my $tries = 6;

$c->start_source;
$c->sql(0, q{
	ALTER EXTENSION multisite_repl DROP FUNCTION multisite.write_restore_point(text);
	ALTER FUNCTION multisite.write_restore_point(text) RENAME TO write_restore_point_now;
	CREATE FUNCTION multisite.write_restore_point(name text, OUT lsn pg_lsn, OUT timeline int) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM multisite.write_restore_point_now(name);
		RAISE EXCEPTION 'behind the restore point';
	END $$;});

my $segment = $c->source(0);
my $log = -s $segment->logfile;
my $session = Session->new($c->source(-1));
my $began = time();
foreach (1 .. $tries)
{
	$session->begin('SELECT multisite_create_consistency_point()');
	like($session->end, qr/behind the restore point/, 'a point fails behind a restore point');
}
note(sprintf('%.1f s', time() - $began));
my @names = substr(slurp_file($segment->logfile), $log) =~ /restore point "(\S+)" created at/g;
my %seen = map { $_ => 1 } @names;
is(scalar @names, $tries, 'each has written one');
is(scalar keys %seen, $tries, 'and each has a name of its own') or diag(join("\n", @names));

# and they are no points
$c->sql(0, q{
	DROP FUNCTION multisite.write_restore_point(text);
	ALTER FUNCTION multisite.write_restore_point_now(text) RENAME TO write_restore_point;});
my $point = $c->create_point;
ok(!$seen{$point}, "the point that is made, $point, has none of those names");
is($c->sql(-1, 'SELECT string_agg(name, \',\') FROM multisite_consistency_points'), $point, 'and is the only one');

done_testing();
