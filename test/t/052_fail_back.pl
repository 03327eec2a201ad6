
# After a fail-over the old site is built anew, follows the promoted one, and
# a planned switch brings the cluster back to it, with nothing lost.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('fail_back', segments => 1, conf => 'autovacuum = off');

sub delete_topics
{
	my ($site) = @_;
	system_or_bail("$ENV{MULTISITE_SRC}/test/kafka/broker", 'tool', $ENV{MULTISITE_KAFKA_DIR},
		'org.apache.kafka.tools.TopicCommand', '--delete', '--topic', "$c->{cluster}\\.$site\\..*");
}

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a text)') foreach $c->ids;
$c->start_remote;
$c->sql($_, q{INSERT INTO t VALUES ('at main')}) foreach $c->ids;
$c->wait_applied($c->create_point('over'));
$c->cut_source;
$c->promote('over');

# the promoted site is a source of its own
my %dr = map { $_ => $c->remote($_) } $c->ids;
$c->wait_for($dr{$_}, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'}) foreach $c->ids;
is($dr{-1}->safe_psql('postgres', 'SELECT multisite_create_consistency_point()') ne '', 1, 'it makes points');
is($dr{-1}->safe_psql('postgres', 'SELECT segments FROM multisite_consistency_points ORDER BY id DESC LIMIT 1'), '2',
	'of all of its segments');

# the old site's pipes hold what did not survive; it begins with new ones
delete_topics('main');

# the old site follows it
my %back;
foreach my $id ($c->ids)
{
	$back{$id} = $c->init_remote($id, site => 'main', source_site => 'dr', from => $dr{$id},
		node_name => "fail_back_again_$id");
	$back{$id}->start;
}
my $conninfo = $c->conninfo($back{0}) =~ s/'/''/gr;
$dr{-1}->safe_psql('postgres', "SELECT multisite_add_segment(0, '$conninfo', 'main')");
$dr{$_}->safe_psql('postgres', q{INSERT INTO t VALUES ('at dr')}) foreach $c->ids;
$dr{-1}->safe_psql('postgres', q{SELECT multisite_create_consistency_point('back')});
is($back{-1}->safe_psql('postgres', q{SELECT multisite_wait_for_consistency_point('back', 'applied', '180 s')}), 't',
	'the old site gets there');

# and takes over again
$dr{$_}->stop foreach $c->ids;
is($back{-1}->safe_psql('postgres', q{SELECT multisite_promote('back')}), 'back', 'it is promoted');
foreach my $id ($c->ids)
{
	is($back{$id}->safe_psql('postgres', q{SELECT string_agg(a, ', ' ORDER BY a) FROM t}), 'at dr, at main', "segment $id has it all");
	$back{$id}->safe_psql('postgres', q{INSERT INTO t VALUES ('at main again')});
	$c->wait_for($back{$id}, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'});
}
is($back{-1}->safe_psql('postgres', q{SELECT multisite_create_consistency_point('at home')}), 'at home', 'and makes points');
is($back{-1}->safe_psql('postgres', q{SELECT segments FROM multisite_consistency_points WHERE name = 'at home'}), '2',
	'of all of its segments, too');

# the same for the site that was left
delete_topics('dr');

# all is as it was in the beginning, with the names and topics of then
foreach my $id ($c->ids)
{
	$c->init_remote($id, from => $back{$id}, node_name => "fail_back_dr_again_$id")->start;
}
$conninfo = $c->conninfo($c->remote(0)) =~ s/'/''/gr;
$back{-1}->safe_psql('postgres', "SELECT multisite_add_segment(0, '$conninfo', 'dr')");
$back{$_}->safe_psql('postgres', q{INSERT INTO t VALUES ('the same')}) foreach $c->ids;
$c->wait_applied($back{-1}->safe_psql('postgres', 'SELECT multisite_create_consistency_point()'));
is($c->remote_sql($_, 'SELECT count(*) FROM t'), '4', "segment $_ of the other site follows again") foreach $c->ids;
$back{$_}->stop('immediate') foreach $c->ids;
$c->promote;
is($c->remote_sql($_, 'SELECT count(*) FROM t'), '4', "and is promoted once more, segment $_") foreach $c->ids;

done_testing();
