# SPDX-License-Identifier: Apache-2.0
# A postmaster's scripts: logs are written, parsed into hashes, counted, sorted, and forgotten.
use strict;
use warnings;

srand($ENV{seed});
my (@lines, @mails, %words);

sub phase { system('pmlguest', 'phase', $_[0]) == 0 or die }
sub draw { int rand $_[0] }
sub rest { phase('idle'); select undef, undef, undef, 0.3 + 5 * rand() ** 2 }

sub make_log {
    my ($count) = @_;
    push @lines, sprintf 'day %d host%d mail[%d]: from=<u%d@guest> to=<u%d@guest> size=%d %s', draw(30),
        draw(9), draw(30000), draw(500), draw(500), draw(90000), draw(9) ? 'sent' : 'deferred' for 1 .. $count;
}
sub parse {
    for (@lines[-6000 .. -1]) {
        next unless defined && /host(\d+) mail\[(\d+)\]: from=<(.*?)> to=<(.*?)> size=(\d+) (\w+)/;
        push @mails, { host => $1, id => $2, from => $3, to => $4, size => $5, state => $6 };
    }
}

make_log(12000);
parse();
while (1) {
    my $work = (qw(log parse parse count count sort rewrite index forget))[draw(9)];
    phase($work);
    if ($work eq 'log') { make_log(2000 + draw(8000)) }
    if ($work eq 'parse') { parse() }
    if ($work eq 'count') {
        for (1 .. 8) { my %n; $n{"$_->{from} $_->{state}"} += $_->{size} for @mails }
    }
    if ($work eq 'sort') { @mails = sort { $a->{to} cmp $b->{to} || $b->{size} <=> $a->{size} } @mails }
    if ($work eq 'rewrite') { s/\@guest>/\@example>/g, s/\@example>/\@guest>/g for @lines }
    if ($work eq 'index') {
        for my $n (0 .. 4000) { last unless $lines[$n]; push @{$words{$_}}, $n for split /\W+/, $lines[$n] }
    }
    if ($work eq 'forget') { splice @mails, 0, @mails / 2; splice @lines, 0, @lines / 2; %words = () }
    rest();
}
