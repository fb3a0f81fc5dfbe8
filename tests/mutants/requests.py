"""Faults in what a request may come to: allowlist, environment, times, path options, the workspace."""

from __future__ import annotations

from mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "directory",
        "a build enters a name, not the directory that was checked",
        "lib/buildcore/service/launch.py",
        "os.fchdir(directory)",
        'os.chdir(os.readlink(f"/proc/self/fd/{directory}"))',
        (
            "test_another_mount_namespace_does_not_make_an_outside_directory_one_of_the_workspace",
            "test_a_directory_that_is_swapped_for_a_link_is_entered_as_itself_or_refused",
        ),
    ),
    Mutant(
        "directory",
        "the kernel's name of a directory is not proved",
        "lib/buildcore/system/paths.py",
        "if not os.path.samestat(named, held):",
        "if False:",
        (
            "test_another_mount_namespace_does_not_make_an_outside_directory_one_of_the_workspace",
            "test_a_directory_that_is_removed_and_made_again_is_entered_or_refused",
        ),
    ),
    Mutant(
        "directory",
        "a neighbour of the workspace passes for it",
        "lib/buildcore/system/paths.py",
        'not real.startswith(root.rstrip("/") + "/")',
        "not real.startswith(root)",
        ("test_nothing_else_may_be_entered",),
    ),
    Mutant(
        "request",
        "only the first -C is held",
        "lib/buildcore/system/paths.py",
        "                hold(step.option, here.real, step.value, workspace)\n",
        "                if before is cwd:\n                    hold(step.option, here.real, step.value, workspace)\n",
        ("test_options_that_leave_the_workspace_are_refused_by_name",),
    ),
    Mutant(
        "request",
        "makefiles are not held",
        "lib/buildcore/system/paths.py",
        "if argument.role is arguments.Role.PATH and not",
        "if False and not",
        ("test_options_that_leave_the_workspace_are_refused_by_name",),
    ),
    Mutant(
        "request",
        "what does not exist is not held",
        "lib/buildcore/system/paths.py",
        "return Directory(_NOT_OPEN, _text(_name_without_file(path, base)))",
        "return Directory(_NOT_OPEN, base.real)",
        ("test_a_name_that_leads_out_is_refused_though_nothing_is_there",),
    ),
    Mutant(
        "request",
        "a MAKEFILES of the environment is not held",
        "lib/buildcore/service/planner.py",
        "if makefiles is not None:  # make reads",
        "if False:  # make reads",
        ("test_one_that_lies_elsewhere_is_refused",),
    ),
    Mutant(
        "request",
        "a program with a path needs no permission",
        "lib/buildcore/core/policy.py",
        "    if command not in commands:\n",
        (
            '    if command not in commands and command.startswith("/"):\n'
            "        return command\n"
            "    if command not in commands:\n"
        ),
        ("test_any_other_command_is_refused_with_the_allowed_ones",),
    ),
    Mutant(
        "request",
        "a timeout is not capped",
        "lib/buildcore/core/policy.py",
        "return min(timeouts.default_sec if asked is None else asked, timeouts.max_sec)",
        "return timeouts.default_sec if asked is None else asked",
        ("test_the_timeout_is_the_callers_or_the_default_and_is_capped_not_refused",),
    ),
    Mutant(
        "variables",
        "all of a caller's environment passes",
        "lib/buildcore/core/policy.py",
        "    for name in variables.allowed(environment.allow, asked):\n        if name not in own:\n",
        "    for name in asked:\n        if name not in own:\n",
        ("test_no_name_reaches_a_build_that_the_settings_do_not_name",),
    ),
    Mutant(
        "variables",
        "a pattern gives away what the service has",
        "lib/buildcore/core/policy.py",
        "    for name in environment.allow:\n",
        "    for name in variables.allowed(environment.allow, [*own, *inherited]):\n",
        ("test_a_pattern_gives_away_nothing_of_the_service_s_own_environment",),
    ),
    Mutant(
        "variables",
        "a pattern matches in any case",
        "lib/buildcore/core/variables.py",
        "name.startswith(beginnings))",
        "name.upper().startswith(beginnings))",
        ("test_a_pattern_matches_by_the_beginning_in_its_own_case",),
    ),
    Mutant(
        "variables",
        "what loads code is allowed by default",
        "lib/buildcore/core/variables.py",
        '" CPATH C_INCLUDE_PATH',
        '" LD_PRELOAD CPATH C_INCLUDE_PATH',
        ("test_what_loads_code_is_neither_allowed_by_default_nor_sent",),
    ),
    Mutant(
        "variables",
        "what is no name may match",
        "lib/buildcore/core/variables.py",
        "if is_name(name) and (",
        "if (",
        ("test_what_is_no_name_matches_nothing",),
    ),
    Mutant(
        "variables",
        "the caller's variables win over the configuration's",
        "lib/buildcore/core/policy.py",
        "return {**result, **environment.set}",
        "return {**environment.set, **result}",
        ("test_what_the_settings_set_comes_last_and_needs_no_permission",),
    ),
    Mutant(
        "variables",
        "PATH is the caller's",
        "lib/buildcore/core/policy.py",
        'inherited.get("PATH") or',
        'asked.get("PATH") or inherited.get("PATH") or',
        ("test_path_is_the_services",),
    ),
    Mutant(
        "variables",
        "HOME and USER are the caller's",
        "lib/buildcore/core/policy.py",
        "        if name not in own:\n            result[name] = _makeflags",
        "        if True:\n            result[name] = _makeflags",
        ("test_home_user_and_shell_are_the_accounts_whatever_the_caller_says",),
    ),
    Mutant(
        "variables",
        "MAKEFLAGS may refer to variables",
        "lib/buildcore/core/policy.py",
        "if arguments.refers_to_variables(value):",
        "if False:",
        ("test_makeflags_that_make_would_expand_are_refused",),
    ),
    Mutant(
        "variables",
        "MAKEFLAGS may hold a -C or -f",
        "lib/buildcore/core/policy.py",
        "        if path.role is not arguments.Role.FREE:\n",
        "        if False:\n",
        ("test_makeflags_that_lead_make_elsewhere_are_refused",),
    ),
    Mutant(
        "request",
        "a path may be computed by make",
        "lib/buildcore/core/policy.py",
        "    if path.computed:\n",
        "    if False:\n",
        ("test_what_make_would_compute_is_refused",),
    ),
    Mutant(
        "request",
        "the home of another user passes",
        "lib/buildcore/core/policy.py",
        'raise PolicyError(f"{path.option} must be under workspace: {escape(path.value)} is another user\'s home")',
        "return path.value",
        ("test_a_tilde_of_somebody_else_is_refused",),
    ),
    Mutant(
        "request",
        "an account's name may lead the workspace elsewhere",
        "lib/buildcore/core/settings.py",
        'if "{user}" in template and ("/" in user or user in ("", ".", "..")):',
        "if False:",
        ("test_an_account_whose_name_is_no_single_component_gets_no_path",),
    ),
    Mutant(
        "walkers",
        "of letters in a bundle only the first counts",
        "lib/buildcore/core/tools/options.py",
        "enumerate(arg[1:], start=1)",
        "enumerate(arg[1:2], start=1)",
        ("test_make_takes_a_directory_in_each_of_these_forms",),
    ),
    Mutant(
        "walkers",
        "abbreviations of options are not known",
        "lib/buildcore/core/tools/make.py",
        "Getopt(short, with_abbreviations(long), _make_expands_home, _makefiles)",
        "Getopt(short, long, _make_expands_home, _makefiles)",
        ("test_make_takes_a_directory_in_each_of_these_forms", "test_make_takes_a_makefile_in_each_of_these_forms"),
    ),
    Mutant(
        "walkers",
        "what make 4.4 does with a -C twice is not known",
        "lib/buildcore/core/tools/make.py",
        "return (steps, without_repeats(steps))",
        "return (steps,)",
        ("test_a_repeated_directory_gives_the_walk_of_make_4_4_too",),
    ),
    Mutant(
        "walkers",
        "scripts of cmake are not known",
        "lib/buildcore/core/tools/cmake.py",
        '("-S", "-H", "-B", "-C", "-P"), Role.PATH',
        '("-S", "-H", "-B", "-C"), Role.PATH',
        ("test_cmake_takes_a_path_apart_attached_or_after_an_equals_sign",),
    ),
    Mutant(
        "bytes",
        "a line has no longest length",
        "lib/buildcore/core/protocol/lines.py",
        "                if self._scanned > self._limit:\n",
        "                if False:\n",
        ("test_a_request_that_is_too_long_is_refused_before_it_ends_and_is_not_kept",),
    ),
    Mutant(
        "bytes",
        "what follows a refused request is a second try",
        "lib/buildcore/core/protocol/requests.py",
        (
            "                self._got_request = True  # also when it is refused: what follows is no second try\n"
            "                if line is None:\n"
            "                    raise RequestError(_too_long())\n"
            "                return parse_request(line)\n"
        ),
        (
            "                if line is None:\n"
            "                    raise RequestError(_too_long())\n"
            "                request = parse_request(line)\n"
            "                self._got_request = True\n"
            "                return request\n"
        ),
        ("test_what_follows_a_refused_request_is_no_second_try",),
    ),
    Mutant(
        "bytes",
        "deep nesting is an exception",
        "lib/buildcore/core/protocol/requests.py",
        "    except RecursionError:\n",
        "    except ZeroDivisionError:\n",
        ("test_deep_nesting_is_refused",),
    ),
    Mutant(
        "bytes",
        "a path need not be absolute",
        "lib/buildcore/core/protocol/requests.py",
        'if not cwd.startswith("/"):',
        "if False:",
        ("test_a_bad_request_is_refused_with_one_line_that_says_why",),
    ),
    Mutant(
        "proportion",
        "a name has no longest length",
        "lib/buildcore/system/paths.py",
        "    if len(name) >= PATH_MAX:\n",
        "    if False:\n",
        (
            "test_names_that_are_too_long_together_are_refused",
            "test_links_that_lead_to_a_name_that_is_too_long_are_refused",
        ),
    ),
    Mutant(
        "proportion",
        "looking at paths goes on when its caller has gone",
        "lib/buildcore/service/watch.py",
        "                if self._connection in ready:\n",
        "                if False:\n",
        ("test_a_caller_who_goes_while_its_paths_are_looked_at_takes_its_session_along",),
    ),
    Mutant(
        "proportion",
        "looking at paths may take any time",
        "lib/buildcore/service/watch.py",
        "                if left <= 0:\n",
        "                if False:\n",
        ("test_a_caller_who_stays_is_told_in_one_line_and_others_are_served_meanwhile",),
    ),
)
