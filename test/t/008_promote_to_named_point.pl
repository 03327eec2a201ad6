
# Promotion to a named point that is not yet passed; to one that is passed or
# unknown it is refused.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('named', segments => 2);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;

$c->wait_applied($c->create_point('zero'));
$c->wait_applied($c->create_point('one'));
is($c->remote_sql(-1, 'SELECT multisite_pause()'), 'one', 'the site holds at the released point');
foreach my $n (2 .. 4)
{
	$c->sql($_, "INSERT INTO t VALUES ($n)") foreach $c->ids;
	$c->create_point((qw(zero one two three four))[$n]);
}
$c->wait_applied('four', 'staged');
is($c->remote_sql(0, 'SELECT count(*) FROM t'), '0', 'nothing is released while it is paused');
like($c->remote_sql(-1, q{SELECT state FROM multisite_status WHERE worker = 'orchestrator'}), qr/paused/, 'and it says so');

my ($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('zero')});
like($err, qr/"zero" is passed/, 'a passed point is refused');
($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('nonsense')});
like($err, qr/"nonsense" does not exist/, 'an unknown point is refused');
($status, $out, $err) = $c->remote(0)->psql('postgres', q{SELECT multisite_promote()});
like($err, qr/not the coordinator/, 'a segment does not promote the site');
($status, $out, $err) = $c->source(-1)->psql('postgres', q{SELECT multisite_promote()});
like($err, qr/no remote coordinator/, 'nor does the source');

my ($name) = $c->promote('three');
is($name, 'three', 'promoted at the named point, out of a pause');
is($c->remote_sql($_, 'SELECT max(a) FROM t'), '3', "segment $_ is at that point") foreach $c->ids;

($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote('four')});
like($err, qr/promoted already, at consistency point "three"/, 'it cannot be promoted twice to different points');

done_testing();
