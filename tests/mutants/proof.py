"""Faults in the proof that goes before the first caller, and before a reload."""

from __future__ import annotations

from mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "drop",
        "nothing is proved at the start",
        "lib/buildcore/service/main.py",
        "        missing += proof.prove(settings, settled.build_score)\n",
        "",
        ("test_a_daemon_whose_drop_does_nothing_serves_nobody",),
    ),
    Mutant(
        "drop",
        "nothing is proved in a reload's trial",
        "lib/buildcore/service/main.py",
        "    proof.prove(settings, apart.settle(build_score).build_score)\n",
        "    apart.settle(build_score)\n",
        ("test_a_reload_to_a_service_whose_builds_would_be_wrong_is_refused_and_everything_stays",),
    ),
    Mutant(
        "drop",
        "the proof does not compare uids",
        "lib/buildcore/service/proof.py",
        '        "Uid": " ".join([str(ids.uid)] * 4),\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare gids",
        "lib/buildcore/service/proof.py",
        '        "Gid": " ".join([str(ids.gid)] * 4),\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare groups",
        "lib/buildcore/service/proof.py",
        '        "Groups": " ".join(map(str, sorted(ids.groups))),\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare inheritable capabilities",
        "lib/buildcore/service/proof.py",
        '        "CapInh": _NO_CAPABILITIES,\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare no_new_privs",
        "lib/buildcore/service/proof.py",
        '        "NoNewPrivs": str(int(settings.build.no_new_privs)),\n',
        '        "NoNewPrivs": " ".join(shown["NoNewPrivs"].split()),\n',
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare ignored signals",
        "lib/buildcore/service/proof.py",
        '        "SigIgn": _NO_SIGNALS,\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "drop",
        "the proof does not compare descriptors",
        "lib/buildcore/service/proof.py",
        '        "descriptors": _DESCRIPTORS,\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "memory",
        "the proof does not compare the OOM score",
        "lib/buildcore/service/proof.py",
        '        "oom_score_adj": str(build_score),\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
    Mutant(
        "keys",
        "the proof does not compare the session keyring",
        "lib/buildcore/service/proof.py",
        '        "keyring of the service": "none",\n',
        "",
        ("test_what_a_build_would_have_and_is_not_to_is_named",),
    ),
)
