
# A segment that is to be promoted at a point which it has forgotten says so.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('forgot', segments => 1);

$c->start_source;
$c->start_remote;
$c->wait_applied($c->create_point('one'));
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->wait_applied($c->create_point($_), 'staged') foreach 'two', 'three';

# as if thousands of points had come since: in the file, its place is another's
my $node = $c->remote(0);
$c->cut($node);
my $file = $node->data_dir . '/pg_wal/multisite/points';
my $blocks = slurp_file($file);
my $at = index($blocks, "two\0");
cmp_ok($at, '>', 0, 'segment 0 knows the point');
substr($blocks, $at - $at % 256, 256) = "\0" x 256;
open(my $handle, '+<:raw', $file) or die $!;
print $handle $blocks;
close $handle;

my $promoter = Session->new($c->remote(-1));
$promoter->begin(q{SELECT multisite_promote('two')});
$c->wait_for($c->remote(-1), q{SELECT reason LIKE 'waits for the other segments%' FROM multisite_status WHERE worker = 'receiver'});
$node->start;
$c->wait_for($node, q{SELECT state = 'failed' AND reason LIKE
	'consistency point "two" is to be released, but this segment does not know it any more (It is point%'
	FROM multisite_status WHERE worker = 'receiver'});
pass('the segment says why it does not go there');
# whose next attempt begins by saying that it had failed
my $said = q{SELECT state = 'failed' AND reason ~ '^(had failed: )?consistency point "two" is to be released'
	FROM multisite_segments WHERE site = 'dr' AND segment_id = 0};
$c->wait_for($c->remote(-1), $said);
# beyond its next attempts
is($c->remote_sql(-1, "SELECT bool_and(x) FROM (SELECT ($said) AND pg_sleep(0.05) IS NOT NULL AS x FROM generate_series(1, 100)) s"), 't',
	'and so does the coordinator, all the time');

done_testing();
