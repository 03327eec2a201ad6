
# A remote segment of which nothing is heard any more is named, and said to be
# silent, wherever somebody waits for it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('silent', segments => 2);
my $silent = 'has not been heard of for \d+ s';

$c->start_source;
$c->start_remote;
$c->wait_applied($c->create_point('one'));

$c->remote(1)->stop('immediate');
$c->create_point('two');
foreach my $node ($c->remote(-1), $c->source(-1))
{
	$c->wait_for($node, qq{SELECT reason ~ '^$silent; its last words: waits for' FROM multisite_segments
		WHERE site = 'dr' AND segment_id = 1});
	pass($node->name . ' says which segment is silent');
	like($node->safe_psql('postgres', q{SELECT reason FROM multisite_estimates WHERE site = 'dr'}),
		qr/^point "two" waits for segment 1, which has staged .*: $silent/, 'so do the estimates');
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM multisite_segments WHERE site = 'dr' AND reason ~ '$silent'}),
		'1', 'and it is the only one');
}
$c->wait_for($c->remote(-1), qq{SELECT reason ~ '^point "two" waits for segment 1, which $silent' FROM multisite_status
	WHERE worker = 'orchestrator'});
pass('so does the orchestrator');

# a promotion waits for it
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', q{SELECT multisite_promote(timeout => '5 s')});
like($err, qr/NOTICE:  segment 1 $silent/, 'a promotion tells of it');
like($err, qr/DETAIL:  waits for segment (?:0, )?1 \(which $silent\) to be promoted at "one"\./, 'and names it when its time is over');
unlike($err, qr/segment 1: /, 'without repeating what it said before');

# the promotion goes on as soon as the segment is back, so who wants to hear of
# it must have asked before
my $asks = Session->new($c->remote(-1));
$asks->begin('SELECT multisite_promote()');
$c->wait_for($c->remote(-1), q{SELECT wait_event_type = 'Extension' AND state = 'active' FROM pg_stat_activity
	WHERE pid = } . $asks->pid);
$c->remote(1)->start;
my $told = $asks->end;
$asks->quit;
like($told, qr/^one$/m, 'it comes back, and the promotion goes on');
like($told, qr/NOTICE:  segment $_ accepts writes/, "up to segment $_") foreach 1, -1;
is($c->remote_sql(-1, qq{SELECT count(*) FROM multisite_segments WHERE reason ~ '$silent'}), '0', 'nobody is silent');

done_testing();
