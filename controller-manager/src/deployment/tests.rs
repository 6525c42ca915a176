use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::testing::at;

/// A little cluster: applies plans to replica sets, and makes their pods available one at a time.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    second: i64,
    pods_start: bool,
}

impl World {
    fn new(replicas: i32, strategy: serde_json::Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 60,
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}
            }
        }))
        .unwrap();
        Self { deployment, sets: Vec::new(), second: 0, pods_start: true }
    }

    fn set_image(&mut self, image: &str) {
        let template = &mut self.deployment.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        self.bump();
    }

    fn bump(&mut self) {
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    /// One reconcile. Returns whether it changed any set.
    fn reconcile(&mut self) -> bool {
        self.second += 1;
        let snapshot = Snapshot {
            deployment: &self.deployment,
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            pods: Vec::new(),
        };
        let plan = decide(&snapshot, at(self.second));
        let mut written: Vec<String> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Create(set) => Some(set.name_any()),
                Action::Update { new, .. } | Action::Scale { new, .. } => Some(new.name_any()),
                _ => None,
            })
            .collect();
        written.sort();
        let writes = written.len();
        written.dedup();
        assert_eq!(written.len(), writes, "a second write of one set would conflict with the first");
        let mut changed = false;
        for action in plan.actions {
            changed |= !matches!(action, Action::Status(_));
            self.apply(action);
        }
        changed
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Create(set) => {
                let mut set = *set;
                set.metadata.creation_timestamp = Some(Time(at(self.second)));
                set.metadata.uid = set.metadata.name.clone();
                self.sets.push(set);
            }
            Action::Update { new, .. } | Action::Scale { new, .. } => {
                let known = self.sets.iter_mut().find(|set| set.name_any() == new.name_any()).unwrap();
                *known = new.as_ref().clone();
            }
            Action::Delete(set) => self.sets.retain(|known| known.name_any() != set.name_any()),
            Action::Annotate(revision) => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(annotations::REVISION.into(), revision);
            }
            Action::Status(status) => self.deployment.status = Some(*status),
        }
    }

    /// Plays the replica set controller and the kubelet for the sets of one image, and for no other.
    fn run_pods_of(&mut self, image: &str) {
        let elsewhere: Vec<_> = self.sets.iter().map(|set| set.status.clone()).collect();
        self.run_pods();
        for (set, status) in self.sets.iter_mut().zip(elsewhere) {
            if image_of(set) != image {
                set.status = status;
            }
        }
    }

    /// Plays the replica set controller and the kubelet: removes surplus at once, makes one pod available.
    fn run_pods(&mut self) {
        let pods_start = self.pods_start;
        let mut started = false;
        for set in &mut self.sets {
            let size = math::size(set);
            let status = set.status.get_or_insert_with(ReplicaSetStatus::default);
            status.replicas = size;
            let available = status.available_replicas.unwrap_or(0).min(size);
            let start = pods_start && !started && available < size;
            started |= start;
            status.available_replicas = Some(available + i32::from(start));
            status.ready_replicas = status.available_replicas;
        }
    }

    fn settle(&mut self, check: impl Fn(&World)) {
        for _ in 0..200 {
            self.reconcile();
            self.run_pods();
            check(self);
        }
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(math::size).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(math::available).sum()
    }

    fn of_image(&self, image: &str) -> &ReplicaSet {
        self.sets.iter().find(|set| image_of(set) == image).unwrap()
    }

    fn reason(&self) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        let condition = status.conditions.iter().flatten().find(|known| known.type_ == "Progressing");
        condition.and_then(|known| known.reason.clone()).unwrap_or_default()
    }
}

fn image_of(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().unwrap().template.as_ref().unwrap();
    template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn rolling(surge: &str, unavailable: &str) -> serde_json::Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn a_rolling_update_never_leaves_its_bounds_and_completes() {
    for (surge, unavailable, total_max, available_min) in
        [("25%", "25%", 13, 8), ("1", "0", 11, 10), ("0", "3", 10, 7), ("100%", "0%", 20, 10)]
    {
        let mut world = World::new(10, rolling(surge, unavailable));
        // Numbers come as strings here; "1" is a percentage without its sign, as the API accepts only "n%" or n.
        for (field, text) in [("maxSurge", surge), ("maxUnavailable", unavailable)] {
            if let Ok(number) = text.parse::<i32>() {
                let strategy = world.deployment.spec.as_mut().unwrap().strategy.as_mut().unwrap();
                let rolling = strategy.rolling_update.as_mut().unwrap();
                let value = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(number);
                if field == "maxSurge" {
                    rolling.max_surge = Some(value)
                } else {
                    rolling.max_unavailable = Some(value)
                }
            }
        }
        world.settle(|_| {});
        assert_eq!((world.total(), world.available()), (10, 10));
        world.set_image("v2");
        world.settle(|world| {
            assert!(world.total() <= total_max, "{} pods with surge {surge}", world.total());
            assert!(world.available() >= available_min, "{} available", world.available());
        });
        assert_eq!(math::size(world.of_image("v1")), 0);
        assert_eq!(math::available(world.of_image("v2")), 10);
        assert_eq!(world.reason(), "NewReplicaSetAvailable");
        let status = world.deployment.status.as_ref().unwrap();
        assert_eq!((status.updated_replicas, status.unavailable_replicas), (Some(10), None));
        assert!(!world.reconcile(), "a settled deployment is left alone");
    }
}

#[test]
fn a_bad_image_keeps_the_old_pods_and_exceeds_the_deadline() {
    let mut world = World::new(4, rolling("25%", "25%"));
    world.settle(|_| {});
    world.set_image("bad");
    world.pods_start = false;
    world.settle(|world| assert!(world.available() >= 3));
    assert_eq!(world.reason(), "ProgressDeadlineExceeded");
    world.set_image("v1");
    world.pods_start = true;
    world.settle(|_| {});
    assert_eq!(world.reason(), "NewReplicaSetAvailable");
}

#[test]
fn going_back_to_an_earlier_template_makes_it_the_newest_revision() {
    let mut world = World::new(1, rolling("1", "0"));
    world.settle(|_| {});
    world.set_image("v2");
    world.settle(|_| {});
    world.set_image("v1");
    world.settle(|_| {});
    let set = world.of_image("v1");
    assert_eq!(annotations::revision(&set.metadata), 3);
    assert_eq!(set.annotations()["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(annotations::revision(&world.deployment.metadata), 3);
    world.set_image("v3");
    world.settle(|_| {});
    let mut images: Vec<_> = world.sets.iter().map(image_of).collect();
    images.sort();
    assert_eq!(images, ["v1", "v3"], "only one old revision is kept");
}

#[test]
fn unavailable_old_pods_go_first_and_do_not_count_twice() {
    let mut world = World::new(10, rolling("0%", "50%"));
    world.settle(|_| {});
    for set in &mut world.sets {
        let status = set.status.as_mut().unwrap();
        status.available_replicas = Some(7);
        status.ready_replicas = Some(7);
    }
    world.set_image("v2");
    world.reconcile();
    assert_eq!(math::size(world.of_image("v1")), 5, "three that were down anyway, and two more");
}

#[test]
fn an_old_set_that_still_reports_what_it_deletes_is_not_counted_on() {
    let mut world = World::new(5, rolling("40%", "0%"));
    world.settle(|_| {});
    world.set_image("v2");
    // The new pods come up before the old set so much as looks at its new size.
    for _ in 0..20 {
        world.reconcile();
        world.run_pods_of("v2");
        let serving: i32 = world.sets.iter().map(math::dependable).sum();
        assert!(serving >= 5, "{serving} serve");
    }
    assert_eq!(math::size(world.of_image("v2")), 5);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut world = World::new(10, rolling("30%", "20%"));
    world.settle(|_| {});
    world.set_image("v2");
    world.pods_start = false;
    world.settle(|_| {});
    assert_eq!((math::size(world.of_image("v1")), math::size(world.of_image("v2"))), (8, 5));
    world.deployment.spec.as_mut().unwrap().replicas = Some(20);
    world.bump();
    world.reconcile();
    assert_eq!((math::size(world.of_image("v1")), math::size(world.of_image("v2"))), (16, 10));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(2, rolling("1", "0"));
    world.settle(|_| {});
    world.set_image("v2");
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.deployment.spec.as_mut().unwrap().replicas = Some(3);
    world.settle(|_| {});
    assert_eq!(world.sets.len(), 1);
    assert_eq!(math::size(world.of_image("v1")), 3);
    assert_eq!(world.reason(), "DeploymentPaused");
    world.deployment.spec.as_mut().unwrap().paused = Some(false);
    world.settle(|_| {});
    assert_eq!(math::available(world.of_image("v2")), 3);
}

#[test]
fn recreate_waits_for_every_old_pod_before_it_creates_a_new_one() {
    let mut world = World::new(2, json!({"type": "Recreate"}));
    world.settle(|_| {});
    world.set_image("v2");
    let old_pod =
        crate::testing::controlled_by(crate::testing::running_pod("old", "n"), &world.sets[0].uid().unwrap());
    world.reconcile();
    assert_eq!(math::size(world.of_image("v1")), 0);
    let snapshot = |pods| Snapshot {
        deployment: &world.deployment,
        sets: world.sets.iter().cloned().map(Arc::new).collect(),
        pods,
    };
    let waiting = decide(&snapshot(vec![Arc::new(old_pod)]), at(500));
    assert!(!waiting.actions.iter().any(|action| matches!(action, Action::Create(_))));
    let free = decide(&snapshot(Vec::new()), at(500));
    assert!(free.actions.iter().any(|action| matches!(action, Action::Create(set) if math::size(set) == 2)));
}
