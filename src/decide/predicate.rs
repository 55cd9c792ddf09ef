//! The conditions that hang on one fact of a large domain: addresses, ports, names, users, times, devices.
//!
//! All fields of a rule that hang on the same fact (`dest` and `protoL3`, for instance) become one predicate. Predicates
//! that ask the same are one, found again by their [`Key`].

use std::net::IpAddr;
use std::sync::Arc;

use super::addr_set::AddrSet;
use super::device::Mac;
use super::list::List;
use super::name::{NamePattern, NameSet};
use super::request::PathValue;
use super::rules::{AddrValue, L3, NameValue, PortRange, Term, UserValue, fold_user};
use super::week::{WeekTime, Window};
use super::{Cert, L7};

/// Ranges of addresses that are compared to find out whether a rule contradicts itself.
const MAX_RANGES_COMPARED: usize = 4096;

/// A condition on an address: every field must match.
#[derive(Debug, Default)]
pub(super) struct AddrPredicate {
    fields: Vec<AddrField>,
}

#[derive(Debug)]
enum AddrField {
    /// A list of `src` or `dest`.
    Values { any_positive: bool, positive: Addrs, negated: Addrs },
    /// A list of `protoL3`.
    Family { ip4: bool, ip6: bool },
}

/// Addresses of one sign: the literal ones and the variables.
#[derive(Debug)]
struct Addrs {
    nets: AddrSet,
    lists: Vec<Arc<List>>,
}

impl Addrs {
    fn new(terms: &[Term<AddrValue>], negated: bool) -> Addrs {
        let values = || terms.iter().filter(move |t| t.negated == negated).map(|t| &t.value);
        let nets = values().filter_map(|v| if let AddrValue::Net(net) = v { Some(*net) } else { None });
        let lists =
            values().filter_map(|v| if let AddrValue::List(list) = v { Some(list.clone()) } else { None });
        Addrs { nets: AddrSet::new(nets), lists: lists.collect() }
    }

    fn contains(&self, addr: IpAddr) -> bool {
        self.nets.contains(addr) || self.lists.iter().any(|list| list.contains_addr(addr))
    }

    /// How many ranges [`Addrs::ranges`] puts together.
    fn range_count(&self) -> usize {
        self.lists.iter().map(|list| list.addrs().len()).fold(self.nets.len(), usize::saturating_add)
    }

    /// The disjoint ranges of both families.
    fn ranges(&self) -> [Ranges; 2] {
        let sets = || std::iter::once(&self.nets).chain(self.lists.iter().map(|list| list.addrs()));
        [
            Ranges::union(sets().flat_map(AddrSet::ranges_v4).collect()),
            Ranges::union(sets().flat_map(AddrSet::ranges_v6).collect()),
        ]
    }
}

impl AddrPredicate {
    pub(super) fn add_values(&mut self, terms: &[Term<AddrValue>]) {
        self.fields.push(AddrField::Values {
            any_positive: terms.iter().any(|t| !t.negated),
            positive: Addrs::new(terms, false),
            negated: Addrs::new(terms, true),
        });
    }

    pub(super) fn add_families(&mut self, terms: &[Term<L3>]) {
        let matches = |family| list_matches(terms, |value| *value == family);
        self.fields.push(AddrField::Family { ip4: matches(L3::Ip4), ip6: matches(L3::Ip6) });
    }

    pub(super) fn matches(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.fields.iter().all(|field| match field {
            AddrField::Values { any_positive, positive, negated } => {
                (!any_positive || positive.contains(addr)) && !negated.contains(addr)
            }
            AddrField::Family { ip4, ip6 } => {
                if addr.is_ipv4() {
                    *ip4
                } else {
                    *ip6
                }
            }
        })
    }

    /// Whether no address matches. Of long lists it is only known whether they have an address at all: to compare them
    /// would take several times their memory.
    pub(super) fn is_empty(&self) -> bool {
        let mut count = 0usize;
        for field in &self.fields {
            let AddrField::Values { any_positive, positive, negated } = field else { continue };
            if *any_positive && positive.range_count() == 0 {
                return true;
            }
            count = count.saturating_add(positive.range_count()).saturating_add(negated.range_count());
        }
        if count > MAX_RANGES_COMPARED {
            return false;
        }
        let mut left = [Ranges::all(u128::from(u32::MAX)), Ranges::all(u128::MAX)];
        for field in &self.fields {
            let (positive, negated) = match field {
                AddrField::Values { any_positive, positive, negated } => {
                    (any_positive.then(|| positive.ranges()), negated.ranges())
                }
                AddrField::Family { ip4, ip6 } => {
                    let family = |yes: bool| if yes { Ranges::default() } else { Ranges::all(u128::MAX) };
                    (None, [family(*ip4), family(*ip6)])
                }
            };
            if let Some(positive) = positive {
                for (left, positive) in left.iter_mut().zip(&positive) {
                    *left = left.and(positive);
                }
            }
            for (left, negated) in left.iter_mut().zip(&negated) {
                *left = left.without(negated);
            }
        }
        left.iter().all(|ranges| ranges.0.is_empty())
    }
}

/// A condition on a port: the ports that match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortPredicate(Ranges);

impl PortPredicate {
    pub(super) fn any() -> PortPredicate {
        PortPredicate(Ranges::all(u128::from(u16::MAX)))
    }

    pub(super) fn add(&mut self, terms: &[Term<PortRange>]) {
        let ranges = |negated| {
            let of_sign = terms.iter().filter(|t| t.negated == negated);
            Ranges::union(of_sign.map(|t| (u128::from(t.value.from), u128::from(t.value.to))).collect())
        };
        if terms.iter().any(|t| !t.negated) {
            self.0 = self.0.and(&ranges(false));
        }
        self.0 = self.0.without(&ranges(true));
    }

    pub(super) fn matches(&self, port: u16) -> bool {
        self.0.contains(u128::from(port))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

/// A condition on the trusted name, or on there being none: every field must match.
#[derive(Debug, Default)]
pub(super) struct NamePredicate {
    fields: Vec<NameField>,
}

#[derive(Debug)]
struct NameField {
    any_positive: bool,
    positive: Names,
    negated: Names,
}

/// Names of one sign: `none`, the literal ones and the variables.
#[derive(Debug)]
struct Names {
    none: bool,
    names: NameSet,
    lists: Vec<Arc<List>>,
}

impl Names {
    fn new(terms: &[Term<NameValue>], negated: bool) -> Names {
        let values = || terms.iter().filter(move |t| t.negated == negated).map(|t| &t.value);
        let names =
            values().filter_map(|v| if let NameValue::Pattern(p) = v { Some((p.clone(), 0)) } else { None });
        let lists =
            values().filter_map(|v| if let NameValue::List(list) = v { Some(list.clone()) } else { None });
        Names {
            none: values().any(|v| matches!(v, NameValue::None)),
            names: NameSet::new(names),
            lists: lists.collect(),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.names.contains(name) || self.lists.iter().any(|list| list.contains_name(name))
    }

    fn has_names(&self) -> bool {
        !self.names.is_empty() || self.lists.iter().any(|list| list.has_names())
    }
}

impl NamePredicate {
    pub(super) fn add(&mut self, terms: &[Term<NameValue>]) {
        self.fields.push(NameField {
            any_positive: terms.iter().any(|t| !t.negated),
            positive: Names::new(terms, false),
            negated: Names::new(terms, true),
        });
    }

    /// Whether traffic with this name matches, or traffic without one.
    pub(super) fn matches(&self, name: Option<&str>) -> bool {
        self.fields.iter().all(|field| match name {
            None => field.positive.none && !field.negated.none,
            Some(name) => {
                (!field.any_positive || field.positive.contains(name)) && !field.negated.contains(name)
            }
        })
    }

    /// Whether a field has nothing that could match: neither `none` nor a name. What the negated names leave over of the
    /// positive ones is not looked at; see [`Key::contradicts_itself`].
    pub(super) fn is_empty(&self) -> bool {
        !self.matches(None) && self.fields.iter().any(|f| f.any_positive && !f.positive.has_names())
    }
}

/// A condition on the user, or on there being none: every field must match.
#[derive(Debug, Default)]
pub(super) struct UserPredicate {
    fields: Vec<Vec<Term<UserValue>>>,
}

impl UserPredicate {
    pub(super) fn add(&mut self, terms: &[Term<UserValue>]) {
        self.fields.push(terms.to_vec());
    }

    /// Whether this user matches, or who was not asked.
    pub(super) fn matches(&self, user: Option<&str>) -> bool {
        match user.map(fold_user) {
            Some(user) => self.fields.iter().all(|terms| list_matches(terms, |value| value.is(&user))),
            None => self.fields.iter().all(|terms| {
                let none = |negated| Term { negated, value: UserValue::None };
                terms.contains(&none(false)) && !terms.contains(&none(true))
            }),
        }
    }

    /// Whether a field has nothing that could match: neither `none` nor a name.
    pub(super) fn is_empty(&self) -> bool {
        let has_names = |terms: &[Term<UserValue>]| {
            terms.iter().all(|t| t.negated)
                || terms.iter().any(|t| !t.negated && matches!(t.value, UserValue::Name(_)))
        };
        !self.matches(None) && self.fields.iter().any(|terms| !has_names(terms))
    }
}

/// A condition on the time: every field must match.
#[derive(Debug, Default)]
pub(super) struct TimePredicate {
    fields: Vec<Vec<Term<Window>>>,
}

impl TimePredicate {
    pub(super) fn add(&mut self, terms: &[Term<Window>]) {
        self.fields.push(terms.to_vec());
    }

    pub(super) fn matches(&self, time: WeekTime) -> bool {
        self.fields.iter().all(|terms| list_matches(terms, |window| window.contains(time)))
    }

    pub(super) fn is_empty(&self) -> bool {
        !WeekTime::all().any(|time| self.matches(time))
    }
}

/// A condition on a fact that is compared with each value: every field must match.
#[derive(Debug)]
pub(super) struct ListPredicate<T> {
    fields: Vec<Vec<Term<T>>>,
}

impl<T> Default for ListPredicate<T> {
    fn default() -> Self {
        ListPredicate { fields: Vec::new() }
    }
}

impl<T: Clone + PartialEq> ListPredicate<T> {
    pub(super) fn add(&mut self, terms: &[Term<T>]) {
        self.fields.push(terms.to_vec());
    }

    pub(super) fn matches(&self, fact: &T) -> bool {
        self.fields.iter().all(|terms| list_matches(terms, |value| value == fact))
    }
}

/// What makes two predicates the same question: their values in one order, variables by identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Key(Vec<Vec<(bool, KeyValue)>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum KeyValue {
    None,
    Net(ipnet::IpNet),
    Family(bool),
    Ports(PortRange),
    Pattern(NamePattern),
    User(Box<str>),
    L7(&'static str),
    Path(PathValue),
    Window(Window),
    Mac(Mac),
    Device(Box<str>),
    Cert(Cert),
    /// The address of the shared list, which lives as long as the rule.
    List(usize),
}

impl Key {
    pub(super) fn add_addrs(&mut self, terms: &[Term<AddrValue>]) {
        self.add(terms, |value| match value {
            AddrValue::Net(net) => KeyValue::Net(net.trunc()),
            AddrValue::List(list) => KeyValue::List(Arc::as_ptr(list).addr()),
        });
    }

    pub(super) fn add_families(&mut self, terms: &[Term<L3>]) {
        self.add(terms, |value| KeyValue::Family(*value == L3::Ip6));
    }

    pub(super) fn add_ports(&mut self, terms: &[Term<PortRange>]) {
        self.add(terms, |value| KeyValue::Ports(*value));
    }

    pub(super) fn add_names(&mut self, terms: &[Term<NameValue>]) {
        self.add(terms, |value| match value {
            NameValue::None => KeyValue::None,
            NameValue::Pattern(pattern) => KeyValue::Pattern(pattern.clone()),
            NameValue::List(list) => KeyValue::List(Arc::as_ptr(list).addr()),
        });
    }

    pub(super) fn add_users(&mut self, terms: &[Term<UserValue>]) {
        self.add(terms, |value| match value {
            UserValue::None => KeyValue::None,
            UserValue::Name(name) => KeyValue::User(name.clone()),
        });
    }

    pub(super) fn add_l7s(&mut self, terms: &[Term<L7>]) {
        self.add(terms, |value| KeyValue::L7(value.as_str()));
    }

    pub(super) fn add_paths(&mut self, terms: &[Term<PathValue>]) {
        self.add(terms, |value| KeyValue::Path(value.clone()));
    }

    pub(super) fn add_certs(&mut self, terms: &[Term<Cert>]) {
        self.add(terms, |value| KeyValue::Cert(*value));
    }

    pub(super) fn add_windows(&mut self, terms: &[Term<Window>]) {
        self.add(terms, |window| KeyValue::Window(*window));
    }

    pub(super) fn add_macs(&mut self, terms: &[Term<Mac>]) {
        self.add(terms, |mac| KeyValue::Mac(*mac));
    }

    pub(super) fn add_devices(&mut self, terms: &[Term<Box<str>>]) {
        self.add(terms, |device| KeyValue::Device(device.clone()));
    }

    /// Whether every positive value of a field stands there negated, too.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.0.iter().any(|field| {
            let mut positive = field.iter().filter(|(negated, _)| !negated).peekable();
            positive.peek().is_some()
                && positive.all(|(_, value)| field.iter().any(|(negated, other)| *negated && other == value))
        })
    }

    fn add<T>(&mut self, terms: &[Term<T>], value: impl Fn(&T) -> KeyValue) {
        let mut field: Vec<_> = terms.iter().map(|t| (t.negated, value(&t.value))).collect();
        field.sort_unstable();
        field.dedup();
        self.0.push(field);
        self.0.sort_unstable();
    }
}

/// The meaning of one field's list: there is no positive value or one matches, and no negated value matches.
pub(super) fn list_matches<T>(terms: &[Term<T>], matches: impl Fn(&T) -> bool) -> bool {
    let any = |negated: bool| terms.iter().any(|t| t.negated == negated && matches(&t.value));
    (terms.iter().all(|t| t.negated) || any(false)) && !any(true)
}

/// Sorted, disjoint ranges of numbers, first and last, none beside another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn all(last: u128) -> Ranges {
        Ranges(vec![(0, last)])
    }

    /// A range whose end lies before its beginning is none.
    fn union(mut ranges: Vec<(u128, u128)>) -> Ranges {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut out: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match out.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => out.push((first, last)),
            }
        }
        Ranges(out)
    }

    fn contains(&self, number: u128) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// One pass over both: at each step the range that ends first is done with.
    fn and(&self, other: &Ranges) -> Ranges {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                out.push((first, last));
            }
            if a.1 < b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Ranges(out)
    }

    fn without(&self, other: &Ranges) -> Ranges {
        let mut gaps = Vec::with_capacity(other.0.len() + 1);
        let mut next = Some(0);
        for (first, last) in &other.0 {
            if let (Some(from), Some(to)) = (next, first.checked_sub(1)) {
                gaps.push((from, to));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|from| (from, u128::MAX)));
        gaps.retain(|(first, last)| first <= last);
        self.and(&Ranges(gaps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_membership() {
        let sets = [
            vec![],
            vec![(0, 0)],
            vec![(0, u128::MAX)],
            vec![(1, 3), (4, 5), (9, 9)],
            vec![(2, 2), (5, 11)],
            vec![(3, 1), (0, 4), (2, 3)],
            vec![(7, u128::MAX)],
        ]
        .map(Ranges::union);
        for a in &sets {
            for b in &sets {
                let (and, without) = (a.and(b), a.without(b));
                for n in (0..15).chain([u128::MAX - 1, u128::MAX]) {
                    assert_eq!(and.contains(n), a.contains(n) && b.contains(n), "{a:?} and {b:?}: {n}");
                    assert_eq!(
                        without.contains(n),
                        a.contains(n) && !b.contains(n),
                        "{a:?} without {b:?}: {n}"
                    );
                }
            }
        }
        assert_eq!(Ranges::union(vec![(4, 5), (1, 3)]), Ranges(vec![(1, 5)]));
    }
}
